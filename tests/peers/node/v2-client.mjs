// An MCP client on `@modelcontextprotocol/client` 2.x that writes its own truth: see ../README.md for the command line.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { clientArguments, run } from './scenarios.mjs';
import { Truth } from './truth.mjs';

const args = clientArguments();
const truth = new Truth(args.truth, 'node client 2.4.0', args.transport);

function transport() {
    const [command, ...rest] = args.server;
    // The answer of 10 MB is larger than the default buffer.
    if (args.transport === 'stdio') return new StdioClientTransport({ command, args: rest, maxBufferSize: 64 << 20 });
    const Transport = args.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
    return new Transport(new URL(args.url), { fetch: truth.fetch });
}

const client = new Client({ name: 'node-v2-peer', version: '1.0.0' }, { versionNegotiation: { mode: args.mode } });
try {
    await client.connect(truth.wrap(transport()));
    const version = client.getNegotiatedProtocolVersion() ?? '';
    console.error(`protocol ${version}`);
    const call = (params, options) => client.callTool(params, options);
    await run(args, { client, call, hasPing: version < '2026' });
    await client.transport?.terminateSession?.();
    await client.close();
} finally {
    truth.close();
}
process.exit(0);
