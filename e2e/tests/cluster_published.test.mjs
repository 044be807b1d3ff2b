// A camera that is published to, at several nodes: it is where its encoder is, and watched at any of them.

import assert from 'node:assert/strict';

import { cluster, originOf } from '../harness/cluster.mjs';
import { Publisher, beyondLoopback } from '../harness/publisher.mjs';
import { chromium } from '../harness/sdp.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const KEY = 'canary-stream-key-7f3a';
const CAMERA = { id: 'cam-1', url: `whip://${KEY}`, close_after: '1s' };

const threeNodes = (world) => cluster(world, 3, [CAMERA], undefined, { media: beyondLoopback });

/** Offers at a node what Chromium offers. */
const offerAt = (node) =>
  node.call('POST', `/whip/${KEY}`, { headers: { 'content-type': 'application/sdp' }, body: chromium });

scenario('an encoder publishes at one node and is watched at the others', async (world) => {
  const { redis, nodes } = await threeNodes(world);
  const [first, second, third] = nodes;
  for (const node of nodes) await node.cameraIs('cam-1', 'no_publisher');

  const publisher = await new Publisher(world, 'gstreamer', `${first.url}/whip/${KEY}`).start();

  // Nobody watches, and it is known where the encoder is.
  for (const node of nodes) await node.cameraIs('cam-1', 'idle');
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  const browser = await world.browser();
  const viewers = [];
  for (const node of [second, third]) {
    const viewer = await world.open(`${node.url}/?open=cam-1`, { browser });
    await viewer.plays('cam-1');
    await viewer.hears('cam-1', 440);
    viewers.push(viewer);
  }
  const shown = await third.cameraIs('cam-1', 'live');
  assert.deepEqual(shown.nodes.filter(({ origin }) => origin).map(({ node }) => node), ['n1']);

  const refused = await offerAt(second);
  assert.equal(refused.status, 409, refused.text);
  assert.match(refused.json.detail, /^camera cam-1 has a publisher already, at node n1; /);

  await publisher.stop();
  for (const node of nodes) await node.cameraIs('cam-1', 'no_publisher');

  // The encoder goes to another node: those who stayed see it there.
  const moved = Date.now();
  await new Publisher(world, 'gstreamer', `${third.url}/whip/${KEY}`).start();
  for (const viewer of viewers) await viewer.showsWhatIsTakenAfter(moved, 'cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n3');
  for (const viewer of viewers) {
    assert.equal(await viewer.page.evaluate(() => window.testPeers.length), 1, 'over the connection it had');
  }
});

scenario('the node of an encoder dies: it publishes at another one, and viewers elsewhere go on', async (world) => {
  const { redis, nodes } = await threeNodes(world);
  const [first, second, third] = nodes;
  const before = await new Publisher(world, 'gstreamer', `${first.url}/whip/${KEY}`).start();
  const viewer = await world.open(`${third.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  await first.child.kill();
  await before.kill();
  const killed = Date.now();
  // At once: what the dead node holds is waited for.
  await new Publisher(world, 'gstreamer', `${second.url}/whip/${KEY}`).start();

  await viewer.showsWhatIsTakenAfter(killed, 'cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n2');
  await until('the cluster shows it', async () => (await third.camera('cam-1')).state === 'live');
});
