"""An MCP server on the Python SDK (1.x or 2.x): see ../README.md for its tools and command line."""

import argparse
import logging
import os
import socket
import sys
from importlib.metadata import version

import anyio
import uvicorn

if int(version("mcp").split(".")[0]) >= 2:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
else:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.server.fastmcp.exceptions import ToolError

server = MCPServer("py-peer")


@server.tool(structured_output=False)
def echo(text: str) -> str:
    return text


@server.tool(structured_output=False)
def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool(structured_output=False)
def fail(reason: str) -> str:
    raise ToolError(reason)


@server.tool(structured_output=False)
async def slow(seconds: float, ctx: Context) -> str:
    await ctx.report_progress(0, 1)
    await anyio.sleep(seconds)
    return "done"


@server.tool(structured_output=False)
def big(bytes: int) -> str:  # noqa: A002 - the argument's name is part of the tool
    return "x" * bytes


@server.tool(structured_output=False)
def crash() -> str:
    os._exit(3)


@server.resource("test://greeting")
def greeting() -> str:
    return "hello"


@server.prompt()
def greet(name: str) -> str:
    return f"Greet {name}."


class Announcing(uvicorn.Server):
    """Says `ready` once the socket listens."""

    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", file=sys.stderr, flush=True)


def serve_http2(app, args):
    """Serves HTTP/2 by hypercorn: in clear (and what is upgraded to it), or over TLS."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listener = socket.create_server((args.host, args.port))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile, config.keyfile = args.cert, args.key
    config.errorlog = None
    print("ready", file=sys.stderr, flush=True)
    anyio.run(serve, app, config)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["stdio", "http", "sse", "http2"], required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    if args.transport == "stdio":
        server.run("stdio")
        return
    if args.transport == "http2":
        serve_http2(server.streamable_http_app(), args)
        return
    app = server.streamable_http_app() if args.transport == "http" else server.sse_app()
    tls = {"ssl_certfile": args.cert, "ssl_keyfile": args.key}
    Announcing(uvicorn.Config(app, host=args.host, port=args.port, log_level="error", **tls)).run()


main()
