// A config that cannot be: one clear line that names file and key, and an exit code that is not 0.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';

import { toml } from '../harness/manifold.mjs';
import { part } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const CANARY = 'c4nary-Pa55word';
const camera = (changes) => ({
  sources: [{ id: 'TEST', name: 'Test', limit: 5 }],
  cameras: [{ id: 'cam-1', name: 'One', source: 'TEST', url: 'test://', ...changes }],
});

const mistakes = [
  ['an unknown key', { listne: ['127.0.0.1:0'] }, /listne/],
  ['an unknown key of a camera', camera({ colour: 'red' }), /colour/],
  ['a file: URL', camera({ url: 'file:///etc/passwd' }), /file/],
  ['an exec: URL', camera({ url: `exec:rm -rf ${CANARY}` }), /exec/],
  ['a URL that is none', camera({ url: `rtsp//admin:${CANARY}@host` }), /url/],
  ['a camera id with ../', camera({ id: '../cam' }), /cameras\[0\]\.id/],
  ['an unknown source', camera({ source: 'NOBODY' }), /NOBODY/],
  ['open on the network', { listen: ['0.0.0.0:0'] }, /auth/],
  ['a short key', { auth: { mode: 'keys' }, 'auth.keys': { devkey: 'short' } }, /devkey/],
];

for (const [what, tree, names] of mistakes) {
  scenario(`the config check finds ${what}`, async (world) => {
    const path = world.file('manifold.toml');
    writeFileSync(path, toml(tree));

    for (const command of [['config', 'check', '--config', path], ['serve', '--config', path]]) {
      const child = await ended(world, command);

      assert.notEqual(child.code, 0, child.output);
      assert.match(child.output, names);
      assert.match(child.output, /manifold\.toml/, 'the file is named');
      assert.ok(child.output.trim().split('\n').length <= 2, `one line: ${child.output}`);
      assert.ok(!child.output.includes(CANARY), child.output);
      assert.doesNotMatch(child.output, /panicked/);
    }
  });
}

scenario('a busy port stops the start with the port, the key and the way out', async (world) => {
  const taken = createServer();
  world.after(() => taken.close());
  await new Promise((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address();
  const path = world.file('manifold.toml');
  writeFileSync(path, toml({ listen: [`127.0.0.1:${port}`], media: { udp: '127.0.0.1:0' }, rtsp: { listen: '127.0.0.1:0' } }));

  const child = await ended(world, ['serve', '--config', path]);

  assert.notEqual(child.code, 0);
  assert.match(child.output, new RegExp(String(port)));
  assert.match(child.output, /listen/);
});

scenario('a file that is not there is named', async (world) => {
  const child = await ended(world, ['serve', '--config', '/nonexistent/manifold.toml']);

  assert.notEqual(child.code, 0);
  assert.match(child.output, /\/nonexistent\/manifold\.toml/);
});

/** Runs manifold to its end. */
async function ended(world, args) {
  const child = new Child('manifold', part('manifold'), args, { log: world.file('manifold.log') });
  world.own(child);
  await until('manifold has ended', () => !child.alive, { within: 5_000, show: () => child.tail() });
  return child;
}
