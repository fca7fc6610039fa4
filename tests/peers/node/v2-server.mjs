// An MCP server on `@modelcontextprotocol/server` 2.x, of both eras: see ../README.md for its tools and command line.

import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import { parseArgs } from 'node:util';
import { serve } from '@hono/node-server';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { register } from './tools.mjs';

const { values: args } = parseArgs({
    options: {
        transport: { type: 'string' },
        host: { type: 'string', default: '127.0.0.1' },
        port: { type: 'string', default: '0' },
        cert: { type: 'string' },
        key: { type: 'string' }
    }
});

const newServer = () => register(new McpServer({ name: 'node-v2-peer', version: '1.0.0' }));

if (args.transport === 'stdio') {
    serveStdio(newServer);
} else {
    const handler = createMcpHandler(newServer, { maxRequestBodySize: 64 << 20 });
    const fetch = request => (new URL(request.url).pathname === '/mcp' ? handler.fetch(request) : new Response(null, { status: 404 }));
    const overTls = args.transport === 'http2' ? http2.createSecureServer : https.createServer;
    const protocol = args.cert
        ? { createServer: overTls, serverOptions: { cert: readFileSync(args.cert), key: readFileSync(args.key) } }
        : args.transport === 'http2' && { createServer: http2.createServer };
    serve({ fetch, hostname: args.host, port: Number(args.port), ...protocol }, () => console.error('ready'));
}
