// What each node shows is what all of them have; and a node that goes, or the store, is got over.

import assert from 'node:assert/strict';

import { cluster, lastLeaseEnded, originOf, storeTime, watchGaps } from '../harness/cluster.mjs';
import { manifold } from '../harness/command.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/**
 * From a node's death to the picture at the others, in ms. The node holds its cameras for 2 s after it said so last
 * (its lease on them), another one that wants them looks each 250 ms, and the camera's next keyframe is a second away
 * at most. The rest of what is promised is for a busy machine.
 */
const PICTURE_BACK = 5_000;

/**
 * From a node's death until nothing is counted of it, in ms by the store's clock. It took its last census before
 * it died, who took none for 13 s is dead, and each other node looks once a second.
 */
const LEASES_BACK = 15_000;

/** Until a test is told that it was not so: it may look late, and compare with what the product noted. */
const PATIENCE = { within: 40_000 };

/** A page at each of these nodes, all of which play the camera. */
async function playing(world, nodes, browser) {
  const viewers = [];
  for (const node of nodes) {
    const viewer = await world.open(`${node.url}/?open=cam-1`, { browser });
    await viewer.plays('cam-1');
    viewers.push(viewer);
  }
  return viewers;
}

const json = async (node, path) => (await node.call('GET', path)).json;

scenario('a node without viewers shows states, rooms and figures of the others, until they are gone', async (world) => {
  const camera = await world.camera();
  const { nodes } = await cluster(world, 3, [{ id: 'cam-1', url: camera.url('/h264opus') }]);
  const [first, second, third] = nodes;
  await playing(world, [first, second], await world.browser());

  const seen = await until('the third node shows that the camera is live', async () => {
    const found = await third.camera('cam-1');
    return found.state === 'live' && found.nodes.length === 2 && found;
  });
  assert.deepEqual([seen.status, seen.codec, seen.viewer_count, seen.pullers], ['ONLINE', 'H264', 2, 1]);
  assert.deepEqual(
    seen.nodes.map(({ node, origin, state }) => [node, origin, state]),
    [['n1', true, 'live'], ['n2', false, 'live']],
  );

  await until('the room has the viewers of both, and media flows to them', async () => {
    const { rooms } = await json(third, '/rooms/camera_cam-1');
    const states = rooms[0].participants.map(({ state, is_publisher: publishes }) => [state, publishes]);
    return JSON.stringify(states) === '[["ACTIVE",true],["ACTIVE",false],["ACTIVE",false]]';
  });
  assert.equal((await json(third, '/rooms')).rooms[0].num_participants, 3);
  const stats = await third.stats();
  assert.deepEqual([stats.active_streams, stats.total_viewers, stats.total.current], [2, 2, 2]);
  assert.equal(stats.missing_nodes, undefined);
  const health = await json(third, '/health');
  assert.deepEqual(health.cluster, {
    node: 'n3',
    nodes: [{ node: 'n1', available: true }, { node: 'n2', available: true }],
  });
  const { cluster: part } = await json(second, '/metrics?format=json');
  assert.deepEqual([part.nodes, part.origins, part.feeds_taken], [2, 0, 1]);
  assert.match((await first.call('GET', '/metrics?format=prometheus')).text, /^manifold_feeds_given 1$/m);

  await Promise.all([first.child.kill(), second.child.kill()]);

  await until('the third node says who is missing, and shows nothing of theirs', async () => {
    const page = await json(third, '/api/v1/cameras');
    return page.missing_nodes?.join() === 'n1,n2' && page.cameras[0].state === 'idle';
  });
  const told = (await json(third, '/health')).cluster.nodes;
  assert.ok(told.every(({ available, reason }) => !available && reason), JSON.stringify(told));
  assert.deepEqual((await third.stats()).missing_nodes, ['n1', 'n2']);
});

scenario('the origin is killed: viewers of both other nodes see the picture, and one of these pulls it', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 3, [{ id: 'cam-1', url: camera.url('/h264opus') }]);
  const [first, second, third] = nodes;
  const browser = await world.browser();
  const [, ...others] = await playing(world, nodes, browser);
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  for (const user of ['a', 'b', 'c']) assert.equal((await first.reserve('cam-1', user)).status, 200);
  assert.equal((await second.stats()).active_streams, 6, 'three watch, three will not come');
  const gaps = others.map((viewer) => watchGaps(viewer, 'cam-1'));

  const died = await storeTime(redis);
  await first.child.kill();

  await until('another node is the origin', async () => /n[23]/.test(await originOf(redis, 'cam-1')));
  for (const viewer of others) await viewer.advances('cam-1', 30, PATIENCE.within);
  const worst = await Promise.all(gaps.map((gap) => gap.worst()));
  console.log(`the origin was killed: the longest gaps were ${worst.join(' and ')} ms`);
  assert.ok(Math.max(...worst) < PICTURE_BACK, `${worst.join(' and ')} ms without a picture`);
  await until('one node pulls the camera', () => camera.connections() === 1);
  for (const node of [second, third]) {
    await until('the leases of the dead node are back', async () => (await node.stats()).active_streams === 2, PATIENCE);
  }
  const after = await lastLeaseEnded(redis, died);
  console.log(`the last lease of the dead node ended after ${after} ms`);
  assert.ok(after < LEASES_BACK, `the last lease ended after ${after} ms`);
  await until('for people too', async () => (await redis.cli('GET', 'stream:count:TEST')) === '2');

  await first.restart();
  await playing(world, [first], browser);
  assert.equal(camera.connections(), 1);
  await until('the node is among the others again', async () => {
    const { cluster: seen } = await json(third, '/health');
    return seen.nodes.length === 2 && seen.nodes.every(({ available }) => available);
  });
  await until('it shows all viewers, and the page that had lost it is one of them', async () => {
    const { active_streams: all } = await first.stats();
    return all === 4;
  });
});

scenario('the origin ends: it hands its camera over', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus') }]);
  const [first, second] = nodes;
  const [, there] = await playing(world, nodes, await world.browser());
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  const gap = watchGaps(there, 'cam-1');

  await first.child.stop();

  await until('the other node is the origin', async () => (await originOf(redis, 'cam-1')) === 'n2');
  await there.advances('cam-1', 30, PATIENCE.within);
  console.log(`the origin was ended: the longest gap was ${await gap.worst()} ms`);
  assert.equal(camera.connections(), 1);
  await until('one node is registered', async () => (await redis.cli('HKEYS', 'stream:nodes')) === 'n2');
  await until('its leases are back', async () => (await second.stats()).active_streams === 1);
  assert.equal((await second.stats()).missing_nodes, undefined, 'it went by itself, and is not missed');
});

scenario('the store is killed and comes back empty: the nodes agree again on who pulls', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus') }]);
  const viewers = await playing(world, nodes, await world.browser());

  await redis.kill();

  for (const viewer of viewers) await viewer.advances('cam-1', 60, PATIENCE.within);
  await redis.launch();
  await until('a node has the lease again', async () => /n[12]/.test(await originOf(redis, 'cam-1')));
  await until('one node pulls the camera', () => camera.connections() === 1, PATIENCE);
  for (const viewer of viewers) await viewer.advances('cam-1', 30, PATIENCE.within);
  assert.equal(camera.connections(), 1);
  for (const node of nodes) {
    await until('each node shows the leases of both', async () => (await node.stats()).active_streams === 2);
  }
});

scenario('a puller is stopped, and a camera reset, for all nodes at the edge', async (world) => {
  const camera = await world.camera();
  const { nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus'), close_after: '60s' }]);
  const [first, second] = nodes;
  const live = async (node) => {
    const reserved = await node.reserve('cam-1', 'u');
    assert.equal(reserved.status, 200, reserved.text);
    await until('the camera is live there', async () => (await node.camera('cam-1')).state === 'live');
    return reserved.json.reservation_id;
  };
  const ids = [await live(first), await live(second)];
  for (const [index, node] of nodes.entries()) {
    const released = await node.call('DELETE', `/api/v1/stream/release/${ids[index]}`);
    assert.equal(released.status, 200, released.text);
  }
  assert.equal(camera.connections(), 1, 'it is kept for a minute');

  const stopped = await second.call('DELETE', '/ingress/whip-pusher-cam-1');
  assert.equal(stopped.status, 200, stopped.text);
  await until('the origin has let the camera go', () => camera.connections() === 0);

  const again = [await live(first), await live(second)];
  const { code, json: reset } = await manifold('reset --camera cam-1 --yes --json', { url: second.url });
  assert.equal(code, 0, JSON.stringify(reset));
  assert.deepEqual(reset.reservations_ended, again.toSorted());
  assert.deepEqual(reset.pullers_stopped, ['cam-1']);
  await until('nobody pulls the camera', () => camera.connections() === 0);
  for (const node of nodes) assert.equal((await node.stats()).active_streams, 0);

  await first.child.kill();
  await until('the other node misses it', async () => (await second.stats()).missing_nodes?.join() === 'n1');
  const told = await manifold('reset --camera cam-1 --yes', { url: second.url });
  assert.equal(told.code, 1, told.text);
  assert.match(told.out, /^node n1 did not answer: /m);
});
