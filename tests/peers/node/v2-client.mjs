// An MCP client on `@modelcontextprotocol/client` 2.x that writes its own truth: see ../README.md for the command line.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { clientArguments, run } from './scenarios.mjs';
import { Truth } from './truth.mjs';

const args = clientArguments();
const truth = new Truth(args.truth, 'node client 2.4.0', args.transport);

const [command, ...rest] = args.server;
const url = args.url && new URL(args.url);
const [Transport, ...options] = {
    // The answer of 10 MB is larger than the default buffer.
    stdio: [StdioClientTransport, { command, args: rest, maxBufferSize: 64 << 20 }],
    http: [StreamableHTTPClientTransport, url, { fetch: truth.fetch }],
    sse: [SSEClientTransport, url, { fetch: truth.fetch }]
}[args.transport];
truth.observe(Transport);

// A revision that is asked for is the only one that it knows.
const pinned = args.protocol && { supportedProtocolVersions: [args.protocol] };
const client = new Client({ name: 'node-v2-peer', version: '1.0.0' }, { versionNegotiation: { mode: args.mode }, ...pinned });
try {
    await client.connect(new Transport(...options));
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
