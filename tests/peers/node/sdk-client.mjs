// An MCP client on `@modelcontextprotocol/sdk` 1.x that writes its own truth: see ../README.md for the command line.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { clientArguments, run } from './scenarios.mjs';
import { Truth } from './truth.mjs';

const args = clientArguments();
const truth = new Truth(args.truth, 'node sdk 1.32.2', args.transport);

function transport() {
    const [command, ...rest] = args.server;
    // The answer of 10 MB is larger than the default buffer.
    if (args.transport === 'stdio') return new StdioClientTransport({ command, args: rest, maxBufferSize: 64 << 20 });
    const Transport = args.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
    return new Transport(new URL(args.url), { fetch: truth.fetch });
}

const client = new Client({ name: 'node-sdk-peer', version: '1.0.0' });
try {
    await client.connect(truth.wrap(transport()));
    const call = (params, options) => client.callTool(params, undefined, options);
    await run(args, { client, call, hasPing: true });
    await client.transport?.terminateSession?.();
    await client.close();
} finally {
    truth.close();
}
process.exit(0);
