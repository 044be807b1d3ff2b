// Several servers as one system, asked at any of them: for a viewer of another node it does what its own would do.

import assert from 'node:assert/strict';

import { freePort } from '../harness/camera.mjs';
import { manifold } from '../harness/command.mjs';
import { Redis } from '../harness/redis.mjs';
import { chromium } from '../harness/sdp.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const admin = { headers: { authorization: `Bearer ${token('', 'ada', { video: { roomJoin: false, roomAdmin: true } })}` } };
const bearer = (text) => ({ headers: { authorization: `Bearer ${text}` } });
const keys = { auth: { mode: 'keys' }, 'auth.keys': { [KEY.id]: KEY.secret } };
const park = [{ id: 'cam-1', url: 'test://' }];

/** What the media of a viewer that an operator ended may still take. */
const END = { within: 5_000 };

/** Nodes n1 and n2 with one store. */
async function pair(world, settings = {}) {
  const redis = await Redis.start(world);
  const start = async (node) => {
    const port = await freePort();
    return world.manifold({
      listen: [`127.0.0.1:${port}`],
      cameras: park,
      cluster: { node, url: `http://127.0.0.1:${port}` },
      store: { url: redis.url },
      ...settings,
    });
  };
  const [n1, n2] = [await start('n1'), await start('n2')];
  const nodes = async () => (await redis.cli('HKEYS', 'stream:nodes')).split('\n').sort().join();
  await until('both are there', async () => (await nodes()) === 'n1,n2');
  return { redis, start, n1, n2 };
}

/** A page of n1 that plays the camera, and its reservation. */
async function watching(world, node) {
  const viewer = await world.open(node.url);
  const reserved = viewer.page.waitForResponse((answer) => answer.url().endsWith('/stream/reserve') && answer.ok());
  await viewer.page.locator('[data-open="cam-1"]').click();
  const { reservation_id: id, token: text } = await (await reserved).json();
  await viewer.plays('cam-1');
  return { viewer, id, token: text };
}

/** How many watch at a node. */
const connected = async (node) => {
  const text = await node.metrics();
  return Number(/^manifold_viewers_connected (\d+)$/m.exec(text)?.[1]);
};

scenario('a viewer of n1 is kept by a heartbeat at n2, and ended by a release there', async (world) => {
  const { n1, n2 } = await pair(world);
  const { id } = await watching(world, n1);

  const beat = await n2.call('POST', `/api/v1/stream/heartbeat/${id}`, {
    body: { quality: 'high', frames_decoded: 7 },
  });
  assert.equal(beat.status, 200, beat.text);
  assert.equal(beat.json.quality, 'high', 'its own node took the wish');
  const traced = (await n1.call('GET', `/api/v1/trace/${id}`)).json;
  assert.ok(traced.steps.some(({ step }) => step === 'decoded'), JSON.stringify(traced.steps));
  assert.equal(await connected(n1), 1);

  const released = await n2.call('DELETE', `/api/v1/stream/release/${id}`);
  assert.equal(released.status, 200, released.text);
  await until('its media ends', async () => (await connected(n1)) === 0, END);
  const { json: life } = await n1.call('GET', `/api/v1/trace/${id}`);
  assert.deepEqual([life.state, life.reason], ['ended', 'released']);
  const again = await n2.call('POST', `/api/v1/stream/heartbeat/${id}`);
  assert.equal(again.status, 404);
  assert.match(again.json.detail, /the reservation has ended: .*; reserve again/, 'as its node tells it');
});

scenario('a viewer of n1 that is removed at n2 stays away from all, also after restarts and FLUSHALL', async (world) => {
  const { redis, start, n1, n2 } = await pair(world, keys);
  const reserve = async (node) =>
    (await node.call('POST', '/api/v1/stream/reserve', { body: { camera_id: 'cam-1', user_id: 'mona' }, ...admin })).json;
  const place = await reserve(n1);
  const remove = (node, { reservation_id: id }) =>
    node.call('DELETE', `/rooms/camera_cam-1/participants/viewer_${id}`, admin);
  const refused = async (node, { token: text }) => {
    const { status, json } = await node.whep('cam-1', text, chromium);
    return status === 401 && /^the token was revoked/.test(json.detail);
  };
  const fresh = (await n2.call('POST', `/api/v1/stream/heartbeat/${place.reservation_id}`, bearer(place.token))).json;

  const removed = await remove(n2, place);
  assert.deepEqual([removed.status, removed.json?.new_count], [200, 0], removed.text);
  for (const text of [place.token, fresh.token]) {
    assert.ok(await refused(n1, { token: text }), 'at its node');
    assert.ok(await refused(n2, { token: text }), 'and where it was removed');
  }
  const { json: life } = await n1.call('GET', `/api/v1/trace/${place.reservation_id}`, admin);
  assert.deepEqual([life.state, life.reason], ['ended', 'an operator removed the viewer']);

  const other = await reserve(n2);
  assert.equal((await remove(n2, other)).status, 200);
  await until('n1 has read of it', () => refused(n1, other), END);

  await redis.cli('FLUSHALL');
  await until('the list is back', async () => Number(await redis.cli('ZCARD', 'stream:revoked')) >= 3, END);
  const n3 = await start('n3');
  await until('a node that begins then knows it', async () => (await refused(n3, place)) && refused(n3, other), END);
  assert.ok(Number(await redis.cli('PTTL', 'stream:revoked')) > 0, 'it vanishes with its last entry');

  await redis.cli('SET', 'stream:revoked', 'somebody else was here');
  await until('that is put right', async () => (await redis.cli('TYPE', 'stream:revoked')) === 'zset', END);
});

scenario('without a store a removed viewer stays away after a restart', async (world) => {
  const folder = world.file('kept');
  const start = () => world.manifold({ ...keys, cameras: park, store: { data_dir: folder } });
  const before = await start();
  const { json: place } = await before.call('POST', '/api/v1/stream/reserve', {
    body: { camera_id: 'cam-1', user_id: 'mona' },
    ...admin,
  });
  const gone = `/rooms/camera_cam-1/participants/viewer_${place.reservation_id}`;
  assert.equal((await before.call('DELETE', gone, admin)).status, 200);
  await before.child.kill();

  const after = await start();
  const { status, json } = await after.whep('cam-1', place.token, chromium);
  assert.equal(status, 401);
  assert.match(json.detail, /^the token was revoked: its viewer was sent away/);
});

scenario('why and trace of a viewer of n1, asked at n2, tell both nodes, and who did not answer', async (world) => {
  const camera = await world.camera();
  const { n1, n2 } = await pair(world, { cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const { id } = await watching(world, n1);
  await until('the origin is told', async () => (await n2.get(`/api/v1/why/${id}`)).origin === 'n1');

  const why = await n2.get(`/api/v1/why/${id}`);
  assert.deepEqual([why.well, why.node, why.unanswered], [true, 'n1', undefined], JSON.stringify(why));
  assert.ok(why.ladder.every(({ state }) => state === 'done' || state === 'unseen'), JSON.stringify(why.ladder));
  await n2.call('POST', `/api/v1/stream/heartbeat/${id}`);
  const traced = await n2.get(`/api/v1/trace/${id}`);
  assert.deepEqual([traced.state, traced.node, traced.origin], ['granted', 'n1', 'n1']);
  // Its own page may be heard of at n1 before or after that.
  const there = traced.steps.filter(({ node }) => node !== 'n1');
  assert.deepEqual(there.map(({ step, node }) => [step, node]), [['forwarded', 'n2']], 'one step, and where it happened');
  assert.deepEqual(traced.steps.map(({ at }) => at), traced.steps.map(({ at }) => at).toSorted());
  const shown = await manifold(`trace ${id}`, { url: n2.url });
  assert.match(shown.out, /watched at node n1, camera pulled by node n1/);
  const park = await n2.get('/api/v1/why/cam-1');
  assert.deepEqual(park.viewers.map(({ node, stage }) => [node, stage]), [['n1', 'playing']]);

  await n1.child.kill();

  const said = ({ unanswered = [] }) => unanswered.some((sentence) => sentence.startsWith('node n1 did not answer'));
  const after = await n2.get(`/api/v1/why/${id}`);
  assert.ok(said(after), JSON.stringify(after));
  assert.ok(said(await n2.get('/api/v1/why/cam-1')));
  const gone = await n2.call('GET', `/api/v1/trace/${id}`);
  assert.equal(gone.status, 503);
  assert.match(gone.json.detail, /has a place before camera cam-1, .*node n1 did not answer/);
  await until('n1 has left the store', async () => /it is gone since/.test((await n2.get(`/api/v1/why/cam-1`)).unanswered[0]));
  const beat = await n2.call('POST', `/api/v1/stream/heartbeat/${id}`);
  assert.equal(beat.status, 404);
  assert.match(beat.json.detail, /reserve again; node n1 did not answer: it is gone since/);
  await until('the lease of the dead node is over', async () => (await n2.stats()).active_streams === 0, { within: 20_000 });
});

scenario('a password that is wrong at n1 is the reason at n2', async (world) => {
  const camera = await world.camera({ auth: 'digest' });
  const { n1, n2 } = await pair(world, { cameras: [{ id: 'cam-1', url: camera.url('/h264', 'wrong') }] });
  assert.equal((await n1.reserve('cam-1')).status, 200);
  await n1.cameraIs('cam-1', 'unauthorized');

  const why = await n2.get('/api/v1/why/cam-1');
  assert.equal(why.well, false);
  assert.match(why.sentence, /^node n1 pulls the camera, and says: .*user name or password/);
  assert.match(why.remedy, /correct the user name and password/);
  const states = why.nodes.map(({ node, state }) => [node, state]);
  assert.deepEqual(states, [['n2', 'idle'], ['n1', 'unauthorized']]);
});

scenario('an offer, and the end of its session, come to n2 for a reservation of n1', async (world) => {
  const { n1, n2 } = await pair(world, keys);
  const { json: place } = await n1.call('POST', '/api/v1/stream/reserve', {
    body: { camera_id: 'cam-1', user_id: 'mona' },
    ...admin,
  });
  const { page } = await world.open(n2.url);
  const played = await page.evaluate(async (text) => {
    const peer = new RTCPeerConnection();
    peer.addTransceiver('video', { direction: 'recvonly' });
    await peer.setLocalDescription();
    const answer = await fetch('/whep/cam-1', {
      method: 'POST',
      headers: { 'content-type': 'application/sdp', authorization: `Bearer ${text}` },
      body: peer.localDescription.sdp,
    });
    const sdp = await answer.text();
    if (!answer.ok) return { status: answer.status, text: sdp };
    await peer.setRemoteDescription({ type: 'answer', sdp });
    window.ended = new Promise((done) => {
      peer.addEventListener('connectionstatechange', () => peer.connectionState !== 'connected' && done());
    });
    for (;;) {
      const stats = [...(await peer.getStats()).values()];
      const frames = stats.find(({ type }) => type === 'inbound-rtp')?.framesDecoded ?? 0;
      if (frames > 5) return { status: answer.status, location: answer.headers.get('location') };
      await new Promise((done) => setTimeout(done, 50));
    }
  }, place.token);
  assert.equal(played.status, 201, JSON.stringify(played));
  const why = await n2.call('GET', `/api/v1/why/${place.reservation_id}`, admin);
  assert.deepEqual([why.json.well, why.json.node], [true, 'n1'], why.text);

  const patched = await n2.call('PATCH', played.location, {
    body: 'a=ice-ufrag:abcd\r\na=end-of-candidates\r\n',
    headers: { 'content-type': 'application/trickle-ice-sdpfrag' },
  });
  assert.equal(patched.status, 204, patched.text);
  assert.equal((await n2.call('DELETE', played.location)).status, 200);
  const { json: life } = await n1.call('GET', `/api/v1/trace/${place.reservation_id}`, admin);
  assert.equal(life.state, 'ended');
  assert.equal((await n2.call('DELETE', played.location)).status, 404, 'it is over');
  const late = await n2.whep('cam-1', place.token, chromium);
  assert.equal(late.status, 410, 'as its node says it');
});
