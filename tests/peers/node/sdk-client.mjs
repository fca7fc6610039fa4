// An MCP client on `@modelcontextprotocol/sdk` 1.x that writes its own truth: see ../README.md for the command line.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { clientArguments, run } from './scenarios.mjs';
import { Truth } from './truth.mjs';

const args = clientArguments();
const truth = new Truth(args.truth, 'node sdk 1.32.2', args.transport);

const [command, ...rest] = args.server;
const url = args.url && new URL(args.url);
const [Transport, ...options] = {
    // The answer of 10 MB is larger than the default buffer.
    stdio: [StdioClientTransport, { command, args: rest, maxBufferSize: 64 << 20 }],
    http: [StreamableHTTPClientTransport, url, { fetch: truth.fetch }],
    sse: [SSEClientTransport, url, { fetch: truth.fetch }]
}[args.transport];
truth.observe(Transport);

const client = new Client({ name: 'node-sdk-peer', version: '1.0.0' });
try {
    await client.connect(new Transport(...options));
    const call = (params, options) => client.callTool(params, undefined, options);
    await run(args, { client, call, hasPing: true });
    await client.transport?.terminateSession?.();
    await client.close();
} finally {
    truth.close();
}
process.exit(0);
