"""An MCP client on the Python SDK (1.x or 2.x) that writes its own truth: see ../README.md for the command line."""

import argparse
import contextlib
import sys
from datetime import timedelta
from importlib.metadata import version

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import MCP_DEFAULT_SSE_READ_TIMEOUT, MCP_DEFAULT_TIMEOUT, create_mcp_http_client

import scenarios
from truth import Receiving, Sending, Truth

VERSION = version("mcp")
MODERN = int(VERSION.split(".")[0]) >= 2


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["stdio", "http", "sse", "http2"], required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--url")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--mode", choices=["auto", "legacy"], default="auto")
    parser.add_argument("--dialect", choices=["peers", "everything"], default="peers")
    parser.add_argument("server", nargs="*")
    return parser.parse_args()


@contextlib.asynccontextmanager
async def transport(args, truth):
    """Opens the SDK's transport and yields its two streams, wrapped."""

    def http_client(**options):
        client = http2_client() if args.transport == "http2" else create_mcp_http_client(**options)
        client.event_hooks = {"response": [truth.on_response]}
        return client

    if args.transport == "stdio":
        opened = stdio_client(StdioServerParameters(command=args.server[0], args=args.server[1:]))
    elif args.transport == "sse":
        opened = sse_client(args.url, httpx_client_factory=http_client)
    else:
        # Results larger than the 2.x client's default limit of 1 MiB are part of the tests.
        limit = {"max_sse_event_size": None} if MODERN else {}
        opened = streamable_http_client(args.url, http_client=http_client(), **limit)
    async with opened as streams:
        yield Receiving(streams[0], truth), Sending(streams[1], truth)


def http2_client():
    """What `create_mcp_http_client` makes, for HTTP/2 alone: in clear with prior knowledge, over TLS by ALPN."""
    import httpx2

    return httpx2.AsyncClient(
        http1=False, http2=True, timeout=httpx2.Timeout(MCP_DEFAULT_TIMEOUT, read=MCP_DEFAULT_SSE_READ_TIMEOUT)
    )


class Legacy:
    """The 1.x session behind the few verbs that the scenarios use."""

    def __init__(self, session):
        self.session = session
        self.has_ping = True

    def call(self, name, arguments):
        return self.session.call_tool(name, arguments, read_timeout_seconds=timedelta(hours=2))

    def ping(self):
        return self.session.send_ping()

    def __getattr__(self, verb):
        return getattr(self.session, verb)


class Modern:
    """The 2.x client behind the few verbs that the scenarios use."""

    def __init__(self, client):
        self.client = client
        self.has_ping = client.protocol_version < "2026"

    def call(self, name, arguments):
        return self.client.call_tool(name, arguments, read_timeout_seconds=7200)

    def ping(self):
        return self.client.send_ping()

    def __getattr__(self, verb):
        return getattr(self.client, verb)


async def main(args):
    truth = Truth(args.truth, f"python mcp {VERSION}", args.transport)
    try:
        if MODERN:
            from mcp import Client

            async with Client(transport(args, truth), mode=args.mode, cache=None) as client:
                print(f"protocol {client.protocol_version}", file=sys.stderr)
                await scenarios.run(args, Modern(client))
        else:
            async with transport(args, truth) as streams, ClientSession(*streams) as session:
                await session.initialize()
                await scenarios.run(args, Legacy(session))
    finally:
        truth.close()


anyio.run(main, arguments())
