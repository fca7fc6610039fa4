// The peers' tools, resource and prompt, registered alike on a server of either major version of the SDK.

import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';

const text = string => ({ content: [{ type: 'text', text: string }] });

export function register(server) {
    const tool = (name, fields, run) => server.registerTool(name, { inputSchema: z.object(fields) }, run);
    tool('echo', { text: z.string() }, async ({ text: said }) => text(said));
    tool('add', { a: z.number(), b: z.number() }, async ({ a, b }) => text(String(a + b)));
    tool('fail', { reason: z.string() }, async ({ reason }) => ({ ...text(reason), isError: true }));
    tool('slow', { seconds: z.number() }, async ({ seconds }, context) => {
        await progress(context);
        await sleep(seconds * 1000);
        return text('done');
    });
    tool('big', { bytes: z.number() }, async ({ bytes }) => text('x'.repeat(bytes)));
    tool('crash', {}, async () => process.exit(3));
    server.registerResource('greeting', 'test://greeting', {}, async uri => ({ contents: [{ uri: uri.href, text: 'hello' }] }));
    server.registerPrompt('greet', { argsSchema: promptArguments(server) }, ({ name }) => ({
        messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}.` } }]
    }));
    return server;
}

// 1.x takes the bare fields here, 2.x an object schema.
function promptArguments(server) {
    const fields = { name: z.string() };
    return server.isLegacySdk ? fields : z.object(fields);
}

async function progress(context) {
    const token = (context.mcpReq ?? context)._meta?.progressToken;
    if (token === undefined) return;
    const notify = context.mcpReq?.notify ?? context.sendNotification;
    await notify({ method: 'notifications/progress', params: { progressToken: token, progress: 0, total: 1 } });
}
