// Several servers as one system, and what is wrong with one of them: its clock, its way to the others, its store,
// or it stands still.

import assert from 'node:assert/strict';

import { cluster, lastLeaseEnded, originOf, startNode, storeTime, watchGaps } from '../harness/cluster.mjs';
import { freePort } from '../harness/camera.mjs';
import { manifold } from '../harness/command.mjs';
import { part } from '../harness/parts.mjs';
import { Cluster, Redis, SentinelGroup } from '../harness/redis.mjs';
import { chromium } from '../harness/sdp.mjs';
import { Socket } from '../harness/socket.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/** What a viewer's media may still take that was sent away. */
const END = { within: 5_000 };

/** From when a node stands still to the picture at the others, in ms: see `cluster_whole`. */
const PICTURE_BACK = 5_000;

/** Leases of a node that died, by the store's clock. */
const LEASES_BACK = 15_000;

/** Until a test is told that something was not so. */
const PATIENCE = { within: 40_000 };

/** The clock of a program, `seconds` ahead of the others'; its timers run as ever. */
const ahead = (seconds) => ({
  LD_PRELOAD: part('faketime'),
  FAKETIME: `+${seconds}s`,
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
});

const keys = { auth: { mode: 'keys' }, 'auth.keys': { [KEY.id]: KEY.secret } };
/** Good for two hours, wherever the clock is that looks at it. */
const admin = () => {
  const exp = Math.floor(Date.now() / 1e3) + 7_200;
  return { headers: { authorization: `Bearer ${token('', 'ada', { exp, video: { roomJoin: false, roomAdmin: true } })}` } };
};

const ask = (node, method, path, body) => node.call(method, path, { body, ...admin() });

async function reserve(node, user = 'mona') {
  return ask(node, 'POST', '/api/v1/stream/reserve', { camera_id: 'cam-1', user_id: user });
}

/** A place that must be granted. */
async function granted(node, user) {
  const { status, json, text } = await reserve(node, user);
  assert.equal(status, 200, text);
  return json;
}

const active = async (node) => (await ask(node, 'GET', '/api/v1/stream/stats')).json.active_streams;

/** Waits until all these nodes count so many leases. */
async function allCount(nodes, leases, patience = {}) {
  for (const node of nodes) {
    await until(`${node.url} counts ${leases}`, async () => (await active(node)) === leases, {
      ...patience,
      show: () => active(node),
    });
  }
}

/** How many watch at a node; other nodes that pull from it are not meant. */
async function connected(node) {
  const { text } = await ask(node, 'GET', '/metrics?format=prometheus');
  const figure = (name) => Number(new RegExp(`^manifold_${name} (\\d+)$`, 'm').exec(text)?.[1]);
  return figure('viewers_connected') - figure('feeds_given');
}

/** Whether a token opens nothing there since it was taken back. */
async function refused(node, { token: text }) {
  const { status, json } = await node.whep('cam-1', text, chromium);
  return status === 401 && /^the token was revoked/.test(json.detail);
}

const sendAway = (node, { reservation_id: id }) => ask(node, 'DELETE', `/rooms/camera_cam-1/participants/viewer_${id}`);

/** Plays the camera by a place, offered at `node`, whose it need not be. */
async function plays(world, node, { token: text }) {
  const viewer = await world.open(`${node.url}/health`);
  const played = await viewer.page.evaluate(async (bearer) => {
    const peer = new RTCPeerConnection();
    peer.addTransceiver('video', { direction: 'recvonly' });
    await peer.setLocalDescription();
    const answer = await fetch('/whep/cam-1', {
      method: 'POST',
      headers: { 'content-type': 'application/sdp', authorization: `Bearer ${bearer}` },
      body: peer.localDescription.sdp,
    });
    const sdp = await answer.text();
    if (!answer.ok) return sdp;
    await peer.setRemoteDescription({ type: 'answer', sdp });
    window.frames_decoded = async () => {
      const stats = [...(await peer.getStats()).values()];
      return stats.find(({ type }) => type === 'inbound-rtp')?.framesDecoded ?? 0;
    };
    return 'answered';
  }, text);
  assert.equal(played, 'answered');
  const frames = () => viewer.page.evaluate(() => window.frames_decoded());
  await until('the picture moves', async () => (await frames()) > 5);
  return { viewer, frames };
}

/** Waits until each node sees all the others. */
async function allThere(nodes) {
  for (const node of nodes) {
    await until('it sees all others', async () => {
      const { json } = await ask(node, 'GET', '/health');
      return json.cluster.nodes.length === nodes.length - 1 && json.cluster.nodes.every(({ available }) => available);
    }, PATIENCE);
  }
}

scenario('clocks ten minutes apart: one quota, leases of the same length, tokens and revocations that hold', async (world) => {
  const redis = await Redis.start(world);
  const sources = [{ id: 'TEST', name: 'Test', limit: 4 }];
  const settings = { ...keys, sources, cameras: [{ id: 'cam-1', url: 'test://' }] };
  const nodes = [
    await startNode(world, 1, redis.url, settings),
    await startNode(world, 2, redis.url, settings, ahead(600)),
    await startNode(world, 3, redis.url, settings),
  ];
  const [first, late, third] = nodes;
  const clock = async (node) => Date.parse((await ask(node, 'GET', '/api/v1/stream/stats')).json.timestamp);
  const apart = (await clock(late)) - (await clock(first));
  assert.ok(apart > 590_000 && apart < 660_000, `the clocks are ${apart} ms apart`);
  await allThere(nodes);

  const theirs = await granted(late);
  const ours = await granted(first);
  const died = await granted(third, 'who dies');
  const silent = await granted(late, 'who does not come');
  const full = await reserve(third);
  assert.deepEqual([full.status, full.json.error.current, full.json.error.limit], [429, 4, 4]);
  for (const node of nodes) {
    const { status, json } = await reserve(node);
    assert.equal(status, 429);
    assert.ok(json.error.retry_after >= 1 && json.error.retry_after <= 30, `again in ${json.error.retry_after} s`);
  }
  for (const { reservation_id: id } of [theirs, ours, silent]) {
    const left = Number(await redis.cli('ZSCORE', 'stream:leases', id)) - (await storeTime(redis));
    assert.ok(left > 15_000 && left <= 30_000, `it lives for ${left} ms`);
    for (const node of nodes) {
      const beat = await ask(node, 'POST', `/api/v1/stream/heartbeat/${id}`, {});
      assert.equal(beat.status, 200, beat.text);
      assert.ok(beat.json.remaining_ttl > 25 && beat.json.remaining_ttl <= 30, `${beat.json.remaining_ttl} s`);
    }
  }

  // Each token where the other clock is, and both ways.
  const [there, here] = [await plays(world, first, theirs), await plays(world, late, ours)];
  // Who dies with the node is missed before the one who says nothing from here on has run out.
  for (const [node, { reservation_id: id }] of [[third, died], [late, silent]]) {
    const beat = await ask(node, 'POST', `/api/v1/stream/heartbeat/${id}`, {});
    assert.equal(beat.status, 200, beat.text);
  }
  const mark = await storeTime(redis);
  await third.child.kill();
  await allCount([first, late], 3, PATIENCE);
  assert.ok((await lastLeaseEnded(redis, mark)) < LEASES_BACK);
  await until('it runs out', async () => (await redis.cli('ZSCORE', 'stream:leases', silent.reservation_id)) === '', PATIENCE);
  await allCount([first, late], 2);
  for (const { frames } of [there, here]) {
    const before = await frames();
    await until('who watches goes on', async () => (await frames()) > before + 5);
  }
  assert.deepEqual([await connected(first), await connected(late)], [1, 1]);

  assert.equal((await sendAway(first, theirs)).status, 200);
  await until('its media ends', async () => (await connected(late)) === 0, END);
  assert.equal((await sendAway(late, ours)).status, 200);
  await until('its media ends', async () => (await connected(first)) === 0, END);
  for (const node of [first, late]) {
    for (const place of [theirs, ours]) await until('it opens nothing', () => refused(node, place), END);
  }
  await allCount([first, late], 0);
  assert.equal((await refused(first, died)), false, 'of this one nothing was taken back');
});

scenario('a node that nobody reaches hears of revocations by the store alone', async (world) => {
  const redis = await Redis.start(world);
  const settings = { ...keys, cameras: [{ id: 'cam-1', url: 'test://' }] };
  const deaf = await startNode(world, 3, redis.url, {
    ...settings,
    cluster: { url: `http://127.0.0.1:${await freePort()}` },
  });
  const first = await startNode(world, 1, redis.url, settings);
  const second = await startNode(world, 2, redis.url, settings);
  await until('the others know that it is not reached', async () => {
    const { nodes } = (await ask(first, 'GET', '/health')).json.cluster;
    return nodes.some(({ node, available }) => node === 'n3' && !available);
  });
  const place = await granted(deaf);
  const { viewer } = await plays(world, deaf, place);
  assert.equal(await connected(deaf), 1);

  const removed = await sendAway(first, place);

  assert.deepEqual([removed.status, removed.json.removed], [202, false], removed.text);
  assert.match(removed.json.note, /^node n3 did not answer: .*; its tokens are revoked, and a node that has the viewer ends/);
  await until('its media ends', async () => (await connected(deaf)) === 0, END);
  for (const node of [deaf, second, first]) await until('it opens nothing', () => refused(node, place), END);
  await allCount([first, second, deaf], 0);
  await viewer.page.close();
});

/** What holds of three nodes whose store fails over in `fail`; `cli` asks the store, whoever leads. */
async function outlivesFailOver(world, { url, cli, fail, prefix = '' }) {
  const camera = await world.camera();
  const settings = { ...keys, cameras: [{ id: 'cam-1', url: camera.url('/h264') }] };
  const nodes = [];
  for (const number of [1, 2, 3]) nodes.push(await startNode(world, number, url, settings));
  await allThere(nodes);
  const [places, watching] = [[], []];
  for (const node of nodes) {
    // One after the other: a place that nobody comes to lapses while browsers start.
    const place = await granted(node);
    watching.push(await plays(world, node, place));
    places.push(place);
  }
  assert.equal(camera.connections(), 1);
  const before = await granted(nodes[0]);
  assert.equal((await sendAway(nodes[1], before)).status, 200);
  for (const node of nodes) await until('it opens nothing', () => refused(node, before), END);

  await fail();

  for (const node of nodes) {
    await until('the store is back', async () => (await ask(node, 'GET', '/health')).json.store.available, PATIENCE);
  }
  await allThere(nodes);
  for (const { frames } of watching) {
    const then = await frames();
    await until('who watches goes on', async () => (await frames()) > then + 5, PATIENCE);
  }
  await allCount(nodes, 3, PATIENCE);
  await until('one node pulls the camera', () => camera.connections() === 1, PATIENCE);
  await until('the store says which', async () => /^n[123] /.test(await cli('GET', `${prefix}stream:origin:cam-1/main`)));
  await until('what was revoked is in the list', async () => {
    const list = await cli('ZRANGE', `${prefix}stream:revoked`, '0', '-1');
    return list.includes(before.reservation_id);
  });
  const fourth = await startNode(world, 4, url, settings);
  await until('a node that begins then knows it', () => refused(fourth, before), END);
  assert.equal((await sendAway(fourth, places[2])).status, 200);
  await until('its media ends', async () => (await connected(nodes[2])) === 0, END);
  for (const node of [...nodes, fourth]) await until('it opens nothing', () => refused(node, places[2]), END);
  await allCount([...nodes, fourth], 2);
  await until('for people too', async () => (await cli('GET', `${prefix}stream:count:TEST`)) === '2');
}

scenario('Sentinel makes the replica the leader: three nodes go on as one', async (world) => {
  const group = await SentinelGroup.start(world);
  await outlivesFailOver(world, {
    url: group.url,
    cli: (...words) => (group.leader.child.alive ? group.leader : group.replica).cli(...words),
    fail: async () => {
      await group.leader.kill();
      await until('the replica leads', async () => (await group.replica.cli('ROLE')).startsWith('master'), PATIENCE);
    },
  });
});

scenario('a Redis Cluster loses the leader that has it all: three nodes go on as one', async (world) => {
  const stores = await Cluster.start(world);
  const { id, node: leader } = await stores.leaderOf('{manifold}stream:leases');
  const replica = await stores.addReplica(id);
  await outlivesFailOver(world, {
    url: stores.url,
    prefix: '{manifold}',
    cli: (...words) => stores.cli(...words),
    fail: async () => {
      await leader.kill();
      await until('the replica leads', async () => (await replica.cli('ROLE')).startsWith('master'), PATIENCE);
    },
  });
});

scenario('an origin stands still for ten seconds: another pulls its camera, and it gives way when it goes on', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 3, [{ id: 'cam-1', url: camera.url('/h264') }]);
  const [first, second, third] = nodes;
  const browser = await world.browser();
  const pages = [];
  for (const node of nodes) {
    const page = await world.open(`${node.url}/?open=cam-1`, { browser });
    await page.plays('cam-1');
    pages.push(page);
  }
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  assert.equal(camera.connections(), 1);
  const [, ...others] = pages;
  const gaps = others.map((page) => watchGaps(page, 'cam-1'));

  const stood = await storeTime(redis);
  first.child.signal('SIGSTOP');
  await until('another node is the origin', async () => /n[23]/.test(await originOf(redis, 'cam-1')));
  // The lease on a camera lapses after 2 s; those of viewers only with a node that takes no census for 13 s.
  assert.equal(await active(second), 3, 'its leases are not taken for those of a dead node');
  for (const page of others) await page.advances('cam-1', 30, PATIENCE.within);
  const worst = await Promise.all(gaps.map((gap) => gap.worst()));
  console.log(`the origin stood still: the longest gaps were ${worst.join(' and ')} ms`);
  assert.ok(Math.max(...worst) < PICTURE_BACK, `${worst.join(' and ')} ms without a picture`);
  // The one that stands still has its connection, and takes nothing from it.
  assert.equal(camera.connections(), 2);
  const origin = await originOf(redis, 'cam-1');
  await until('ten seconds are over', async () => (await storeTime(redis)) - stood >= 10_000);

  const went = Date.now();
  first.child.signal('SIGCONT');
  await until('the camera has one puller', () => camera.connections() === 1);
  console.log(`the old origin gave way ${Date.now() - went} ms after it went on`);
  assert.equal(await originOf(redis, 'cam-1'), origin, 'and that is the new one');

  await until('the node takes the feed', async () => (await first.get('/metrics?format=json')).cluster.feeds_taken === 1);
  for (const page of pages) {
    await page.plays('cam-1');
    await page.advances('cam-1', 30, PATIENCE.within);
  }
  await allCount(nodes, 3, PATIENCE);
  await until('the count for people is right', async () => (await redis.cli('GET', 'stream:count:TEST')) === '3');
  assert.deepEqual([camera.connections(), await originOf(redis, 'cam-1')], [1, origin]);
  assert.equal((await third.stats()).missing_nodes, undefined);
});

scenario('a node stands still for longer than its leases: they are free, and it comes back without them', async (world) => {
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: 'test://' }]);
  const [first, second] = nodes;
  assert.equal((await first.reserve('cam-1')).status, 200);
  assert.equal((await second.reserve('cam-1')).status, 200);
  const stood = await storeTime(redis);
  first.child.signal('SIGSTOP');
  await until('its lease is free', async () => (await active(second)) === 1, PATIENCE);
  assert.ok((await lastLeaseEnded(redis, stood)) < LEASES_BACK);
  first.child.signal('SIGCONT');
  await until('it is among the others', async () => {
    const { cluster: seen } = await second.get('/health');
    return seen.nodes.every(({ available }) => available);
  });
  // What it granted lived by its own clock for 30 s: that is put back, and ends with its time.
  await until('both have run out', async () => (await active(second)) === 0, PATIENCE);
  await allCount(nodes, 0);
  await until('for people too', async () => (await redis.cli('GET', 'stream:count:TEST')) === '0');
});

scenario('a node dies: alert, stats, health and top of the others say so, until it is back', async (world) => {
  const { nodes } = await cluster(world, 3, [{ id: 'cam-1', url: 'test://' }]);
  const [first, second, third] = nodes;
  await allThere(nodes);
  const socket = await Socket.open(second.url, { path: '/ws/stream/stats' });
  world.after(() => socket.stream.destroy());
  const alerts = (messages) => messages.filter(({ type, data }) => type === 'ALERT' && data.code === 'NODE_MISSING');
  await until('the whole', () => socket.messages[0]);
  assert.equal((await manifold('health', { url: second.url })).code, 0);

  await first.child.kill();

  const raised = await until('it is told', () => alerts(socket.messages)[0]);
  assert.deepEqual([raised.data.node, raised.data.active], ['n1', true]);
  assert.match(raised.data.message_en, /^node n1 does not answer/);
  assert.match(raised.data.message_ar, /n1/);
  await until('stats say so', () =>
    socket.messages.some(({ type, data }) => type === 'STREAM_STATS' && data.missing_nodes?.join() === 'n1'),
  );
  const newcomer = await Socket.open(third.url, { path: '/ws/stream/stats' });
  world.after(() => newcomer.stream.destroy());
  await until('who comes then is told too', () => alerts(newcomer.messages).some(({ data }) => data.active));
  const top = await manifold('top --once', { url: second.url });
  assert.equal(top.code, 0, top.text);
  assert.match(top.out, /^not heard: n1; what only they know is not shown$/m);
  const health = await manifold('health', { url: second.url });
  assert.equal(health.code, 1, health.text);
  assert.match(health.out, /node n1 does not answer: /);

  await first.restart();

  const over = await until('it is over', () => alerts(socket.messages).find(({ data }) => !data.active), PATIENCE);
  assert.equal(over.data.node, 'n1');
  await allThere(nodes);
  assert.equal((await manifold('health', { url: second.url })).code, 0);
  assert.doesNotMatch((await manifold('top --once', { url: second.url })).out, /not heard/);
});
