// A camera that is published to, at several nodes: it is where its encoder is, and watched at any of them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';

import { freePort } from '../harness/camera.mjs';
import { cluster, originOf, storeTime } from '../harness/cluster.mjs';
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
  for (const node of nodes) {
    await node.cameraIs('cam-1', 'no_publisher');
    const heard = async () => (await node.camera('cam-1')).nodes.length === 3;
    await until('each node has the word of all', heard, { show: () => node.camera('cam-1') });
  }

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

scenario('the node of an encoder stands still until its lease has lapsed: it keeps the encoder, which nobody else has', async (world) => {
  const { redis, nodes } = await threeNodes(world);
  const [first, second] = nodes;
  await new Publisher(world, 'gstreamer', `${first.url}/whip/${KEY}`).start();
  const viewer = await world.open(`${second.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  first.child.signal('SIGSTOP');
  await until('its lease has lapsed', async () => (await originOf(redis, 'cam-1')) === '');
  first.child.signal('SIGCONT');

  const went = Date.now();
  await until('it has the lease again', async () => (await originOf(redis, 'cam-1')) === 'n1');
  await viewer.showsWhatIsTakenAfter(went, 'cam-1');
  assert.match(await first.metrics(), /^manifold_publishers_connected 1$/m);
});

/** A load balancer at its worst: offers go to the one node, and whatever comes after them to the other one. */
async function spreading(world, offers, rest) {
  const server = createServer((asked, answer) => {
    const { method, url, headers } = asked;
    const to = request((method === 'POST' ? offers : rest).url + url, { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode, answered.headers);
      answered.pipe(answer);
    });
    to.on('error', () => answer.destroy());
    asked.pipe(to);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  world.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

scenario('an encoder behind a load balancer ends its session at another node than the one that answered', async (world) => {
  const { redis, nodes } = await cluster(world, 2, [CAMERA], undefined, { media: beyondLoopback });
  const [first, second] = nodes;
  const publisher = await new Publisher(world, 'gstreamer', `${await spreading(world, first, second)}/whip/${KEY}`).start();
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  const viewer = await world.open(`${second.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  await publisher.stop();

  assert.equal(publisher.said('deleted')?.status, 200, publisher.child.output);
  for (const node of nodes) await node.cameraIs('cam-1', 'no_publisher');
  await until('the camera is free', async () => (await originOf(redis, 'cam-1')) === '');
});

scenario('a session of n1 is trickled to, restarted and ended at n2, by its own name alone', async (world) => {
  const { redis, nodes } = await cluster(world, 2, [CAMERA]);
  const [first, second] = nodes;
  await until('n2 knows n1', async () => (await second.call('GET', '/health')).json.cluster.nodes.length === 1);
  const offer = chromium.replaceAll('a=recvonly', 'a=sendonly');
  const headers = { 'content-type': 'application/sdp' };
  const created = await first.call('POST', `/whip/${KEY}`, { body: offer, headers });
  assert.equal(created.status, 201, created.text);
  const [location, etag] = [created.headers.get('location'), created.headers.get('etag')];
  const fragment = 'a=mid:0\r\na=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n';
  const patch = (tag, path = location) => {
    const tagged = { 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': tag };
    return second.call('PATCH', path, { body: fragment, headers: tagged });
  };

  assert.equal((await patch(etag)).status, 204);
  assert.equal((await patch('"other"')).status, 412);
  const restarted = await patch('*');
  assert.equal(restarted.status, 200, restarted.text);
  assert.match(restarted.text, /a=mid:0\r\na=ice-ufrag:\w+\r\na=ice-pwd:\w+\r\na=candidate:/);
  assert.notEqual(restarted.headers.get('etag'), etag);
  assert.equal((await patch(etag)).status, 412, 'that was before the restart');
  for (const name of ['unknown', '67e55044-10b1-426f-9247-bb680e5fe0c8']) {
    assert.equal((await patch(etag, `/whip/cam-1/${name}`)).status, 404);
    assert.equal((await second.call('DELETE', `/whip/cam-1/${name}`)).status, 404);
    assert.equal((await second.call('DELETE', `/whep/cam-1/${name}`)).status, 404);
  }

  assert.equal((await second.call('DELETE', location)).status, 200);
  assert.equal((await second.call('DELETE', location)).status, 404, 'it is over');
  assert.equal((await first.call('DELETE', location)).status, 404);

  // One that is there by the store's word, and answers nobody.
  const silent = { node: 'n9', url: `http://127.0.0.1:${await freePort()}`, owner: 'n9 x', secret: 'x' };
  await redis.cli('HSET', 'stream:nodes', 'n9', JSON.stringify(silent));
  await redis.cli('ZADD', 'stream:nodes:until', (await storeTime(redis)) + 60_000, 'n9');
  const slow = await until('n2 has heard of it', async () => {
    const answer = await second.call('DELETE', location);
    return answer.status === 503 && answer;
  });
  assert.equal(slow.headers.get('retry-after'), '1');
  assert.match(slow.json.detail, /^node n9 did not answer: 127\.0\.0\.1:\d+ cannot be reached: /);
});
