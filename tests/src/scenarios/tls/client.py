"""Calls over HTTPS by Python's own ssl and http.client: `client.py MANNER PORT CERTIFICATE TRUTH`.

It makes no call until the driver makes a file: then the observer is known to be in place.
"""

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time

manner, port, certificate, truth_file = sys.argv[1:5]
context = ssl.create_default_context(cafile=certificate)


class Truth:
    """What this process did, as the driver reads it."""

    def __init__(self, name):
        self.file = open(name, "w", buffering=1)
        self.lock = threading.Lock()
        self.seq = 0
        self.write({"event": "client", "pid": os.getpid(), "sdk": "none", "transport": "raw"})

    def write(self, line):
        self.file.write(json.dumps(line) + "\n")

    def begin(self, number):
        with self.lock:
            seq, self.seq = self.seq, self.seq + 1
            self.write({"event": "begin", "seq": seq, "method": "tools/call", "name": "add", "id": number,
                        "start_ns": time.monotonic_ns()})
            return seq

    def end(self, seq):
        with self.lock:
            self.write({"event": "end", "seq": seq, "outcome": "ok", "rpc_code": None, "http_status": 200,
                        "end_ns": time.monotonic_ns()})


def connect():
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=60)
    connection.connect()
    return connection


class Curl:
    """A connection of pycurl, whose wheel has a TLS library of its own."""

    def __init__(self):
        import pycurl

        self.codes = pycurl
        self.handle = pycurl.Curl()
        self.handle.setopt(pycurl.CAINFO, certificate)

    def ask(self, body, fields):
        self.handle.setopt(self.codes.URL, f"https://127.0.0.1:{port}/mcp")
        self.handle.setopt(self.codes.HTTPHEADER, [f"{name}: {value}" for name, value in fields.items()])
        self.handle.setopt(self.codes.POSTFIELDS, body)
        said = self.handle.perform_rb()
        return self.handle.getinfo(self.codes.RESPONSE_CODE), said


def ask(connection, body, fields):
    if isinstance(connection, Curl):
        return connection.ask(body, fields)
    connection.request("POST", "/mcp", body, fields)
    answer = connection.getresponse()
    return answer.status, answer.read()


def call(connection, truth, number):
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "program", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "add", "arguments": {"a": number, "b": 2}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    fields = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "add",
    }
    seq = truth.begin(number)
    status, said = ask(connection, body, fields)
    truth.end(seq)
    assert status == 200 and b'"result"' in said, (status, said)


def wait(word):
    """Waits until the driver makes a file of that name beside the truth."""
    while not os.path.exists(f"{truth_file}.{word}"):
        time.sleep(0.02)


def calls_of(connection, truth, numbers):
    for number in numbers:
        call(connection, truth, number)


def threads():
    """64 threads with connections of one context, which all wait until all are connected."""
    truth = Truth(truth_file)
    connected = threading.Barrier(64)
    failures = []

    def run(thread):
        try:
            connection = connect()
            connected.wait(60)
            calls_of(connection, truth, range(thread * 100, thread * 100 + 5))
        except BaseException as failure:
            failures.append(failure)
            connected.abort()
            raise

    wait("go")
    all_of_them = [threading.Thread(target=run, args=[thread]) for thread in range(64)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    sys.exit(1 if failures else 0)


def child(act):
    number = os.fork()
    if number == 0:
        try:
            act()
            os._exit(0)
        except BaseException as failure:
            print(failure, file=sys.stderr)
            os._exit(1)
    return number


def ended(number):
    return os.waitpid(number, 0)[1]


def forks():
    """A process that calls, has a child that calls too, one that becomes another program, one that is killed, and calls on."""
    truth = Truth(truth_file)
    connection = connect()
    wait("go")
    calls_of(connection, truth, range(1, 6))

    def calling():
        wait("go-child")
        calls_of(connect(), Truth(truth_file + ".child"), range(1, 6))

    assert ended(child(calling)) == 0, "the child that calls"
    assert ended(child(lambda: os.execv("/bin/true", ["true"]))) == 0, "the child that becomes another program"
    dies = child(lambda: signal.pause())
    os.kill(dies, signal.SIGKILL)
    assert ended(dies) == signal.SIGKILL, "the child that is killed"
    calls_of(connection, truth, range(6, 11))


def plain():
    """Calls on one connection, one after another."""
    truth = Truth(truth_file)
    wait("go")
    calls_of(connect(), truth, range(1, 21))


def late():
    """Records that no library makes, until nobody looks at the socket any more; then calls through TLS on it."""
    truth = Truth(truth_file)
    wait("go")
    connection = http.client.HTTPSConnection("127.0.0.1", int(port))
    connection.sock = socket.create_connection(("127.0.0.1", int(port)))
    for records in (200, 20):
        for _ in range(records):
            connection.sock.sendall(b"\x17\x03\x03\x00\x05hello")
            connection.sock.recv(10, socket.MSG_WAITALL)
        time.sleep(1)
    connection.sock = context.wrap_socket(connection.sock, server_hostname="127.0.0.1")
    calls_of(connection, truth, range(1, 21))


def wheel():
    """The same through a library that came with a wheel."""
    truth, connection = Truth(truth_file), Curl()
    wait("go")
    calls_of(connection, truth, range(1, 21))


{"threads": threads, "forks": forks, "plain": plain, "late": late, "wheel": wheel}[manner]()
