// An MCP server on `@modelcontextprotocol/sdk` 1.x: see ../README.md for its tools and command line.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { parseArgs } from 'node:util';
import express from 'express';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { register } from './tools.mjs';

const { values: args } = parseArgs({
    options: {
        transport: { type: 'string' },
        host: { type: 'string', default: '127.0.0.1' },
        port: { type: 'string', default: '0' },
        cert: { type: 'string' },
        key: { type: 'string' },
        json: { type: 'boolean', default: false }
    }
});

const newServer = () => {
    const server = new McpServer({ name: 'node-sdk-peer', version: '1.0.0' });
    server.isLegacySdk = true;
    return register(server);
};

const sessions = new Map();

async function streamable(request, response) {
    const id = request.headers['mcp-session-id'];
    let transport = sessions.get(id);
    if (transport === undefined) {
        transport = new StreamableHTTPServerTransport({
            enableJsonResponse: args.json,
            sessionIdGenerator: () => randomUUID(),
            onsessioninitialized: created => sessions.set(created, transport)
        });
        await newServer().connect(transport);
    }
    await transport.handleRequest(request, response, request.body);
}

function listen() {
    const app = express();
    if (args.transport === 'http') {
        app.use(express.json({ limit: '64mb' }));
        app.all('/mcp', streamable);
    } else {
        app.get('/sse', async (_request, response) => {
            const transport = new SSEServerTransport('/message', response);
            sessions.set(transport.sessionId, transport);
            await newServer().connect(transport);
        });
        app.post('/message', (request, response) => sessions.get(request.query.sessionId).handlePostMessage(request, response));
    }
    const server = args.cert ? createServer({ cert: readFileSync(args.cert), key: readFileSync(args.key) }, app) : app;
    server.listen(Number(args.port), args.host, () => console.error('ready'));
}

if (args.transport === 'stdio') await newServer().connect(new StdioServerTransport());
else listen();
