// What a client does, the same in every SDK; `../python/scenarios.py` and `../rmcp/src/scenario.rs` say the same.

import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';

const LONG = { timeout: 7_200_000 };

export function clientArguments() {
    const { values, positionals } = parseArgs({
        allowPositionals: true,
        options: {
            transport: { type: 'string' },
            truth: { type: 'string' },
            scenario: { type: 'string' },
            url: { type: 'string' },
            calls: { type: 'string', default: '10' },
            mode: { type: 'string', default: 'auto' },
            protocol: { type: 'string' },
            dialect: { type: 'string', default: 'peers' }
        }
    });
    return { ...values, calls: Number(values.calls), server: positionals };
}

// A refusal is part of the scenario: the truth has noted it.
async function attempt(promise) {
    try {
        return await promise;
    } catch (error) {
        console.error(`answered: ${String(error).slice(0, 120)}`);
        return undefined;
    }
}

// `session` is { client, call(params, options), hasPing }.
export async function run(args, session) {
    const [kind, value] = args.scenario.split(':');
    const key = args.dialect === 'everything' ? 'message' : 'text';
    const call = (name, parameters) => attempt(session.call({ name, arguments: parameters }, LONG));
    const echo = text => call('echo', { [key]: text });
    const numbers = Array.from({ length: args.calls }, (_, number) => number);
    switch (kind) {
        case 'basic':
            return basic(args, session, call);
        case 'calls':
            for (const number of numbers) await echo(`call ${number}`);
            return;
        case 'parallel':
            await Promise.all(numbers.map(number => echo(`call ${number}`)));
            return;
        case 'large':
            await call('big', { bytes: 300 * 1024 });
            await call('big', { bytes: 10 * 1024 * 1024 });
            await echo('x'.repeat(300 * 1024));
            await echo('after');
            return;
        case 'slow':
            await call('slow', { seconds: Number(value) });
            return;
        case 'hang':
            await call('slow', { seconds: 3600 });
            return;
        case 'session':
            for (const number of numbers) {
                await echo(`call ${number}`);
                await sleep(200);
            }
            return;
        case 'crash':
            await echo('before');
            await call('crash', {});
            return;
        default:
            throw new Error(`unknown scenario ${args.scenario}`);
    }
}

async function basic(args, session, call) {
    const { client } = session;
    const everything = args.dialect === 'everything';
    await attempt(client.listTools());
    await call('echo', { [everything ? 'message' : 'text']: 'hello — grüß dich' });
    await call(everything ? 'get-sum' : 'add', { a: 2, b: 3 });
    if (everything) await call('get-sum', { a: 'two', b: 3 });
    else await call('fail', { reason: 'asked to' });
    await call('no_such_tool', {});
    const resources = await attempt(client.listResources());
    const first = resources?.resources[0];
    if (first !== undefined) await attempt(client.readResource({ uri: first.uri }));
    await attempt(client.listPrompts());
    if (everything) await attempt(client.getPrompt({ name: 'simple-prompt' }));
    else await attempt(client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } }));
    if (session.hasPing) await attempt(client.ping());
}
