"""What a client does, the same in every SDK; `node/scenarios.mjs` and `rmcp/src/scenario.rs` say the same."""

import sys

import anyio

ECHO = {"peers": ("echo", "text"), "everything": ("echo", "message")}


async def attempt(awaitable):
    """A refusal is part of the scenario: the truth has noted it."""
    try:
        return await awaitable
    except Exception as error:  # noqa: BLE001 - any SDK error is an answer like another
        print(f"answered: {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
        return None


async def run(args, session):
    kind, _, value = args.scenario.partition(":")
    tool, key = ECHO[args.dialect]

    def echo(text):
        return attempt(session.call(tool, {key: text}))

    if kind == "basic":
        await basic(args, session)
    elif kind == "calls":
        for number in range(args.calls):
            await echo(f"call {number}")
    elif kind == "parallel":
        async with anyio.create_task_group() as group:
            for number in range(args.calls):
                group.start_soon(echo, f"call {number}")
    elif kind == "large":
        await attempt(session.call("big", {"bytes": 300 * 1024}))
        await attempt(session.call("big", {"bytes": 10 * 1024 * 1024}))
        await echo("x" * 300 * 1024)
        await echo("after")
    elif kind == "slow":
        await attempt(session.call("slow", {"seconds": float(value)}))
    elif kind == "hang":
        await attempt(session.call("slow", {"seconds": 3600}))
    elif kind == "session":
        for number in range(args.calls):
            await echo(f"call {number}")
            await anyio.sleep(0.2)
    elif kind == "crash":
        await echo("before")
        await attempt(session.call("crash", {}))
    else:
        raise SystemExit(f"unknown scenario {args.scenario}")


async def basic(args, session):
    everything = args.dialect == "everything"
    await attempt(session.list_tools())
    await attempt(session.call("echo", {"message" if everything else "text": "hello — grüß dich"}))
    await attempt(session.call("get-sum" if everything else "add", {"a": 2, "b": 3}))
    if everything:
        await attempt(session.call("get-sum", {"a": "two", "b": 3}))
    else:
        await attempt(session.call("fail", {"reason": "asked to"}))
    await attempt(session.call("no_such_tool", {}))
    resources = await attempt(session.list_resources())
    if resources is not None and resources.resources:
        await attempt(session.read_resource(resources.resources[0].uri))
    await attempt(session.list_prompts())
    if everything:
        await attempt(session.get_prompt("simple-prompt"))
    else:
        await attempt(session.get_prompt("greet", {"name": "Ada"}))
    if session.has_ping:
        await attempt(session.ping())
