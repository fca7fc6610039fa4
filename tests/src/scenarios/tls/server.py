"""HTTPS servers of Python's own ssl: `server.py MANNER PORT CERTIFICATE KEY`.

`json` answers with JSON that is not MCP; `late` gives back records until its client begins a handshake, and answers calls.
"""

import http.server
import json
import socket
import ssl
import sys

HANDSHAKE = b"\x16"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        result = {"items": [1, 2, 3]} if manner == "json" else {"resultType": "complete", "content": []}
        self.answer({"id": asked["id"], "result": result} | ({} if manner == "json" else {"jsonrpc": "2.0"}))

    def do_GET(self):
        self.answer([{"id": 1, "method": "GET", "jsonrpc": 2}])

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    def finish_request(self, request, address):
        """In the connection's own thread."""
        while manner == "late" and request.recv(1, socket.MSG_PEEK) != HANDSHAKE:
            request.sendall(request.recv(4096))
        super().finish_request(context.wrap_socket(request, server_side=True), address)


manner, port, certificate, key = sys.argv[1:5]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = Server(("127.0.0.1", int(port)), Handler)
print("ready", flush=True)
server.serve_forever()
