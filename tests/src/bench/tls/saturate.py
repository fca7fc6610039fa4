"""Two ends of TLS in one thread and without sockets, so that calls of the library are all there is: `saturate.py KIND SECONDS WORD`.

KIND is `text`, which is not MCP, or `mcp`. Begins when the file WORD is there; prints round trips and nanoseconds of CPU for a call
of the library, of which a round trip has four.
"""

import os
import ssl
import sys
import time

kind, seconds, word, certificate, key = sys.argv[1], float(sys.argv[2]), *sys.argv[3:6]


def pair():
    """A client and a server whose handshake is done."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    of_client = ssl.create_default_context(cafile=certificate)
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(certificate, key)
    client = of_client.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = of_server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client, server


def messages(number):
    if kind == "text":
        return b"*3\r\n$3\r\nSET\r\n$8\r\nkey:0001\r\n$24\r\nabcdefghijklmnopqrstuvwx\r\n", b"+OK\r\n"
    head = b'{"jsonrpc":"2.0","id":%d,' % number
    call = b'"method":"tools/call","params":{"name":"echo","arguments":{"text":"%s"}}}\n' % (b"x" * 180)
    return head + call, head + b'"result":{"content":[{"type":"text","text":"%s"}]}}\n' % (b"x" * 180)


client, server = pair()
number = 0


def trips(count):
    global number
    for _ in range(count):
        there, back = messages(number)
        number += 1
        client.write(there)
        server.read(65536)
        server.write(back)
        client.read(65536)


while not os.path.exists(word):
    time.sleep(0.02)
# Until a verdict has come, which is not what is measured.
warm = time.monotonic() + 1
while time.monotonic() < warm:
    trips(10)
    time.sleep(0.001)
begin, before, first = time.monotonic(), time.process_time_ns(), number
while time.monotonic() - begin < seconds:
    # What the observer is given to copy is less than it can take.
    trips(50 if kind == "mcp" else 500)
    if kind == "mcp":
        time.sleep(0.002)
made = number - first
print(made, (time.process_time_ns() - before) / made / 4)
