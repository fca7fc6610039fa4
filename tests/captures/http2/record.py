"""Records what real programs say to each other over cleartext HTTP/2, by a relay between them.

Usage: python record.py FOLDER    (pip install 'httpx[http2]' hypercorn; curl, nghttp and h2load in the path)

A tape is a row of writes, each its side (1 byte, 0 the client, 1 the server), its length (4, big-endian) and its bytes; a
connection begins with side 2, and only one is open at a time. The server speaks as much MCP as a capture needs: `events`
answers with an event stream, `wait` after half a second, anything else at once, in gzip where that is accepted.
"""

import asyncio
import gzip
import json
import pathlib
import struct
import sys

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

SERVER, RELAY = 18080, 18081
URL = f"http://127.0.0.1:{RELAY}/mcp"
FIELDS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def call(number, tool):
    params = {"name": tool, "arguments": {"text": "x" * 100}}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    request = json.loads(body)
    tool = request["params"]["name"]
    content = [{"type": "text", "text": f"{tool} {number}"} for number in range(20)]
    result = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"content": content}}).encode()
    fields = [(b"mcp-session-id", b"0123456789abcdef")]
    if tool == "events":
        await send({"type": "http.response.start", "status": 200, "headers": [*fields, (b"content-type", b"text/event-stream")]})
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
        for data in (json.dumps(progress).encode(), result):
            await send({"type": "http.response.body", "body": b"event: message\r\ndata: " + data + b"\r\n\r\n", "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body"})
        return
    if tool == "wait":
        await asyncio.sleep(0.5)
    fields.append((b"content-type", b"application/json"))
    if b"gzip" in dict(scope["headers"]).get(b"accept-encoding", b""):
        result = gzip.compress(result, mtime=0)
        fields.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": result})


class Tape:
    def __init__(self, path):
        self.out = open(path, "wb")

    async def relay(self, reader, writer):
        self.out.write(b"\2")
        upstream = await asyncio.open_connection("127.0.0.1", SERVER)
        await asyncio.gather(self.copy(0, reader, upstream[1]), self.copy(1, upstream[0], writer))

    async def copy(self, side, reader, writer):
        while data := await reader.read(1 << 16):
            self.out.write(struct.pack(">BI", side, len(data)) + data)
            writer.write(data)
            await writer.drain()
        writer.close()


async def python_client():
    async with httpx.AsyncClient(http1=False, http2=True, headers=FIELDS) as client:
        tools = ["wait", "events", "add", "events", "add", "add"]
        await asyncio.gather(*(client.post(URL, content=call(number, tool)) for number, tool in enumerate(tools)))
        for number, tool in enumerate(tools[1:], 10):
            await client.post(URL, content=call(number, tool))


async def command(*words):
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    await process.wait()


async def curl(*options):
    fields = [word for name, value in FIELDS.items() for word in ("-H", f"{name}: {value}")]
    for number, tool in enumerate(["add", "events", "add"]):
        await command("curl", "-s", *options, *fields, "-d", call(number, tool), URL)


async def of_file(folder, *words):
    body = folder / "body.json"
    body.write_text(call(7, "add"))
    fields = [word for name, value in FIELDS.items() for word in ("-H", f"{name}: {value}")]
    await command(*words, *fields, "-d", str(body), URL)
    body.unlink()


async def main():
    folder = pathlib.Path(sys.argv[1])
    config = Config()
    config.bind = [f"127.0.0.1:{SERVER}"]
    stop = asyncio.Event()
    server = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    await asyncio.sleep(1)
    for name, client in {
        "httpx": python_client(),
        "curl-prior-knowledge": curl("--http2-prior-knowledge", "--compressed"),
        "curl-upgrade": curl("--http2"),
        "nghttp-upgrade": of_file(folder, "nghttp", "-nu"),
        "h2load": of_file(folder, "h2load", "-n40", "-c1", "-m10"),
    }.items():
        tape = Tape(folder / f"{name}.tape")
        relay = await asyncio.start_server(tape.relay, "127.0.0.1", RELAY)
        await client
        await asyncio.sleep(0.5)
        relay.close()
        tape.out.close()
    stop.set()
    await server


asyncio.run(main())
