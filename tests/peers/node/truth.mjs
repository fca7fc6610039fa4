// The client's own account of its requests, taken where the SDK hands messages to its transport: the same lines as
// `../python/truth.py` writes, and for the same reasons.

import { openSync, writeSync } from 'node:fs';

const now = await clock();
const string = JSON.stringify;

export class Truth {
    constructor(path, sdk, transport) {
        this.file = openSync(path, 'w');
        this.seq = 0;
        this.pending = new Map();
        this.http = new Map();
        this.write(`{"event":"client","pid":${process.pid},"sdk":${string(sdk)},"transport":${string(transport)}}`);
    }

    write(line) {
        writeSync(this.file, `${line}\n`);
    }

    sent(message, transport) {
        if (message.method === undefined || message.id === undefined) return;
        const { id, method, params } = message;
        this.pending.set(string(id), { seq: this.seq, method, transport });
        this.write(
            `{"event":"begin","seq":${this.seq},"method":${string(method)},"name":${string(params?.name ?? null)},` +
                `"id":${string(id)},"start_ns":${now()}}`
        );
        this.seq += 1;
    }

    received(message) {
        const end = now();
        const key = string(message.id);
        if (message.method !== undefined || !this.pending.has(key)) return;
        const http = this.http.get(key);
        const said = http === undefined || http.rpc;
        this.end(key, outcome(this.pending.get(key).method, message, said), end, said ? message.error?.code : null);
    }

    // The transport would not send, or refused what came back: an HTTP status, or a connection that is gone.
    failed(message) {
        const key = string(message.id);
        if (message.method === undefined || !this.pending.has(key)) return;
        const http = this.http.get(key);
        if (http === undefined) return this.end(key, 'server_gone', now());
        const name = http.rpc ? 'rpc_error' : 'http_error';
        this.end(key, message.method === 'server/discover' ? 'negotiation' : name, now(), http.code);
    }

    end(key, name, end, code = null) {
        const { seq } = this.pending.get(key);
        const status = this.http.get(key)?.status ?? null;
        this.pending.delete(key);
        this.http.delete(key);
        this.write(`{"event":"end","seq":${seq},"outcome":"${name}","rpc_code":${code ?? null},"http_status":${status},"end_ns":${end}}`);
    }

    streamEnded(transport) {
        for (const [key, call] of [...this.pending]) if (call.transport === transport) this.end(key, 'server_gone', now());
    }

    close() {
        for (const key of [...this.pending.keys()]) this.end(key, 'unanswered', now());
    }

    // `fetch`, remembering a refusal's status and whether its body says it in JSON-RPC.
    fetch = async (url, init) => {
        const response = await fetch(url, init);
        if (init?.method !== 'POST' || response.status < 400) return response;
        try {
            const key = string(JSON.parse(init.body).id);
            const body = await response.clone().text();
            let error;
            try {
                error = JSON.parse(body).error;
            } catch {
                error = undefined;
            }
            const rpc = Number.isInteger(error?.code);
            this.http.set(key, { status: response.status, rpc, code: rpc ? error.code : null });
        } catch {
            // A body that is no request of ours: nothing to remember.
        }
        return response;
    };

    // Puts itself between the SDK and every transport of this class, before it starts. The class and not the instance: a 2.x
    // client sends its `server/discover` probe through a second transport that it makes for itself.
    observe(Transport) {
        const truth = this;
        const { start } = Transport.prototype;
        Transport.prototype.start = function () {
            truth.wrap(this);
            return start.call(this);
        };
    }

    wrap(transport) {
        const send = transport.send.bind(transport);
        transport.send = async (message, options) => {
            this.sent(message, transport);
            try {
                return await send(message, options);
            } catch (error) {
                this.failed(message);
                throw error;
            }
        };
        intercept(transport, 'onmessage', message => this.received(message));
        intercept(transport, 'onclose', () => this.streamEnded(transport));
    }
}

// CLOCK_MONOTONIC in nanoseconds. `hrtime` of Bun and of Deno begins with the process.
async function clock() {
    const time = new BigInt64Array(2);
    const read = await clockGettime();
    if (read === undefined) {
        return () => process.hrtime.bigint().toString();
    }
    return () => {
        read(1, time);
        return (time[0] * 1_000_000_000n + time[1]).toString();
    };
}

// The C library's, for those that can call it.
async function clockGettime() {
    if (globalThis.Bun !== undefined) {
        const { dlopen, ptr } = await import('bun:ffi');
        const { symbols } = dlopen('libc.so.6', { clock_gettime: { args: ['i32', 'ptr'], returns: 'i32' } });
        return (id, time) => symbols.clock_gettime(id, ptr(time));
    }
    const description = { clock_gettime: { parameters: ['i32', 'buffer'], result: 'i32' } };
    return globalThis.Deno?.dlopen('libc.so.6', description).symbols.clock_gettime;
}

// Calls `note` before whatever handler the SDK has set, or sets later.
function intercept(transport, property, note) {
    const early = transport[property];
    let handler;
    Object.defineProperty(transport, property, {
        get: () => handler,
        set: inner => {
            handler = (...args) => {
                note(...args);
                inner?.(...args);
            };
        }
    });
    transport[property] = early;
}

// The contract's name for what came back.
function outcome(method, { error, result }, said) {
    if (error !== undefined) {
        if (method === 'server/discover' || error.code === -32022) return 'negotiation';
        return said ? 'rpc_error' : 'http_error';
    }
    if (result?.resultType === 'input_required') return 'input_required';
    if (result?.resultType === 'task') return 'task_accepted';
    return result?.isError ? 'tool_error' : 'ok';
}
