"""Writes `python-hpack.bin`: header blocks as the encoder of Python's `hpack` makes them, with a hash of what they say.

Usage: python generate.py FILE    (pip install hpack; the file in the source was made with 4.2.0)

A connection is a number of blocks (2 bytes, big-endian); a block is its length (2), its bytes, and the FNV-1a hash (8) of its
fields, each as `name: value` and a newline. Half of the lists are in Huffman code, the table is resized in mid-stream, and some
fields are never to be indexed. The same seed makes the same file.
"""

import random
import struct
import sys

import hpack

CONNECTIONS = 40
LISTS = 75
NAMES = [":path", "accept", "content-type", "user-agent", "mcp-session-id", "x-request-id", "date", "cookie", "vary", "etag"]
VALUES = ["/mcp", "*/*", "application/json", "text/event-stream", "gzip, deflate, br", "no-cache", "agent/1.0", ""]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_.~/=;, ABCXYZ\"{}\\\t\u00e9"


def text(rng, letters=LETTERS):
    return "".join(rng.choice(letters) for _ in range(min(int(rng.expovariate(0.1)), 120)))


def field(rng, known):
    if known and rng.random() < 0.6:
        name, value = rng.choice(known)
        return name, value if rng.random() < 0.8 else text(rng)
    name = rng.choice(NAMES) if rng.random() < 0.8 else "x-" + text(rng, LETTERS[:36])
    known.append((name, rng.choice(VALUES) if rng.random() < 0.6 else text(rng)))
    return known[-1]


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def blocks(rng):
    encoder, known = hpack.Encoder(), []
    for _ in range(LISTS):
        if rng.random() < 0.08:
            encoder.header_table_size = rng.choice([0, 50, 200, 1000, 4096, 8192, 65536])
        start = rng.choice([[(":method", "POST"), (":scheme", "http")], [(":status", rng.choice(["200", "202", "404", "503"]))]])
        fields = start + [field(rng, known) for _ in range(rng.randrange(1, 9))]
        secret = [rng.random() < 0.05 for _ in fields]
        kinds = [hpack.NeverIndexedHeaderTuple if never else hpack.HeaderTuple for never in secret]
        block = encoder.encode([kind(*pair) for kind, pair in zip(kinds, fields)], huffman=rng.random() < 0.5)
        said = "".join(f"{name}: {value}\n" for name, value in fields).encode()
        yield struct.pack(">H", len(block)) + block + struct.pack(">Q", fnv(said))


def main():
    rng = random.Random(7541)
    with open(sys.argv[1], "wb") as out:
        for _ in range(CONNECTIONS):
            out.write(struct.pack(">H", LISTS))
            for block in blocks(rng):
                out.write(block)


main()
