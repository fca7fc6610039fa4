"""The client's own account of its requests, taken where the SDK hands messages to its transport.

One JSON object a line, flushed at once, so that a client killed in mid-call leaves what it knew: a `begin` line just before a
request goes to the transport, an `end` line just after its answer came. A `begin` without `end` was never answered.
"""

import json
import os
import time


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Truth:
    """Writes the account of one client process."""

    def __init__(self, path, sdk, transport):
        self.file = open(path, "w", buffering=1, encoding="utf-8")
        self.seq = 0
        self.pending = {}
        self.http = {}
        self.write(event="client", pid=os.getpid(), sdk=sdk, transport=transport)

    def write(self, **fields):
        self.file.write(json.dumps(fields, ensure_ascii=False) + "\n")

    def sent(self, message):
        """Notes a request about to be handed to the transport; anything else is no call."""
        fields = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        if "method" not in fields or "id" not in fields:
            return
        params = fields.get("params") or {}
        self.pending[json.dumps(fields["id"])] = (self.seq, fields["method"])
        self.write(
            event="begin", seq=self.seq, method=fields["method"], name=params.get("name"), id=fields["id"], start_ns=now_ns()
        )
        self.seq += 1

    def received(self, message):
        """Notes the answer to a request."""
        end = now_ns()
        fields = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        if "method" in fields or "id" not in fields:
            return
        key = json.dumps(fields["id"])
        if key not in self.pending:
            return
        _, method = self.pending[key]
        status, said_json_rpc = self.http.pop(key, (None, True))
        code = (fields.get("error") or {}).get("code")
        self.end(key, outcome(method, fields, status, said_json_rpc), end, code if said_json_rpc else None, status)

    def end(self, key, outcome, end_ns, rpc_code=None, http_status=None):
        seq, _ = self.pending.pop(key)
        self.write(event="end", seq=seq, outcome=outcome, rpc_code=rpc_code, http_status=http_status, end_ns=end_ns)

    def stream_ended(self):
        """Notes that the server's side of the transport is gone."""
        for key in list(self.pending):
            self.end(key, "server_gone", now_ns())

    def close(self):
        for key in list(self.pending):
            self.end(key, "unanswered", now_ns())

    async def on_response(self, response):
        """An httpx hook: remembers a refusal's status, and whether its body says it in JSON-RPC."""
        if response.request.method != "POST" or response.status_code < 400:
            return
        try:
            key = json.dumps(json.loads(response.request.content)["id"])
        except (ValueError, KeyError, TypeError):
            return
        try:
            said_json_rpc = "error" in json.loads(await response.aread())
        except (ValueError, TypeError):
            said_json_rpc = False
        self.http[key] = (response.status_code, said_json_rpc)


def outcome(method, answer, http_status, said_json_rpc):
    """The contract's name for what came back."""
    error = answer.get("error")
    if error is not None:
        if method == "server/discover" or error.get("code") == -32022:
            return "negotiation"
        return "rpc_error" if said_json_rpc else "http_error"
    result = answer.get("result") or {}
    if result.get("resultType") == "input_required":
        return "input_required"
    if result.get("resultType") == "task":
        return "task_accepted"
    return "tool_error" if result.get("isError") else "ok"


class Sending:
    """A write stream that tells the truth of what passes."""

    def __init__(self, inner, truth):
        self.inner, self.truth = inner, truth

    async def send(self, item):
        self.truth.sent(getattr(item.message, "root", item.message))
        await self.inner.send(item)

    async def __aenter__(self):
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc):
        return await self.inner.__aexit__(*exc)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Receiving:
    """A read stream that tells the truth of what passes."""

    def __init__(self, inner, truth):
        self.inner, self.truth = inner, truth

    def note(self, item):
        if not isinstance(item, Exception):
            self.truth.received(getattr(item.message, "root", item.message))
        return item

    async def receive(self):
        return self.note(await self.inner.receive())

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return self.note(await self.inner.__anext__())
        except StopAsyncIteration:
            self.truth.stream_ended()
            raise

    async def __aenter__(self):
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc):
        return await self.inner.__aexit__(*exc)

    def __getattr__(self, name):
        return getattr(self.inner, name)
