// What all nodes must have alike, and one has otherwise, is told to people by every node.

import assert from 'node:assert/strict';

import { startNode } from '../harness/cluster.mjs';
import { manifold } from '../harness/command.mjs';
import { Redis } from '../harness/redis.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

scenario('nodes with other keys are named by health and doctor; questions are counted', async (world) => {
  const redis = await Redis.start(world);
  const cameras = [{ id: 'cam-1', url: 'test://' }];
  const keys = (secret) => ({ 'auth.keys': { [KEY.id]: secret } });
  const first = await startNode(world, 1, redis.url, { cameras, ...keys(KEY.secret) });
  const second = await startNode(world, 2, redis.url, { cameras, ...keys('canary-of-another-secret-with-32-characters') });

  const said = /its key ".+" has another secret than that of this node; give all nodes the same auth\.keys/;
  for (const [node, other] of [[first, 'n2'], [second, 'n1']]) {
    const { difference } = await until('it names the other node', async () => {
      const { cluster } = (await node.call('GET', '/health')).json;
      return cluster.nodes.find((one) => one.node === other && one.difference);
    });
    assert.match(difference, said);
    const health = await manifold('health', { url: node.url });
    assert.equal(health.code, 1, health.text);
    assert.match(health.out, new RegExp(`^degraded: node ${other}: its key`));
  }
  const admin = token('', 'ada', { video: { roomJoin: false, roomAdmin: true } });
  const { json } = await manifold('doctor --json', { url: first.url, token: admin, cwd: world.folder });
  const found = json.findings.filter(({ part }) => part === 'nodes');
  assert.deepEqual(found.map(({ level, remedy }) => [level, remedy]), [['trouble', 'give all nodes the same auth.keys']]);

  const text = await first.metrics();
  for (const row of [/^manifold_node_questions_total\{outcome="answered"\} [1-9]/m, /^manifold_node_questions_taken_total [1-9]/m,
    /^manifold_node_questions_seconds_total 0*\.?\d/m, /^manifold_revocation_looks_total\{outcome="answered"\} [1-9]/m]) {
    assert.match(text, row);
  }
  for (const node of [first, second]) assert.ok(!node.logs.includes('canary'), 'no secret is in a log');
});
