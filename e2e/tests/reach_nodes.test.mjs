// Several servers as one system, asked at any of them: for a viewer of another node it does what its own would do.

import assert from 'node:assert/strict';

import { freePort } from '../harness/camera.mjs';
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
  return { redis, n1, n2 };
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
  const { text } = await node.call('GET', '/metrics');
  return Number(/^manifold_viewers_connected (\d+)$/m.exec(text)?.[1]);
};

scenario('a viewer of n1 is kept by a heartbeat at n2, and ended by a release there', async (world) => {
  const { n1, n2 } = await pair(world);
  const { viewer, id } = await watching(world, n1);

  const beat = await n2.call('POST', `/api/v1/stream/heartbeat/${id}`, { json: { quality: 'high', frames_decoded: 7 } });
  assert.equal(beat.status, 200, beat.text);
  assert.equal(beat.json.quality, 'high', 'its own node took the wish');
  const traced = (await n1.call('GET', `/api/v1/trace/${id}`)).json;
  assert.ok(traced.steps.some(({ step }) => step === 'decoded'), JSON.stringify(traced.steps));
  const back = await n1.whep('cam-1', beat.json.token, chromium);
  assert.equal(back.status, 201, 'the token is one of the node that it watches at');
  await viewer.page.close();

  const released = await n2.call('DELETE', `/api/v1/stream/release/${id}`);
  assert.equal(released.status, 200, released.text);
  await until('its life has ended at its node', async () => {
    const { json } = await n1.call('GET', `/api/v1/trace/${id}`);
    return json.state === 'ended' && json.reason;
  }, END);
  const again = await n2.call('POST', `/api/v1/stream/heartbeat/${id}`);
  assert.equal(again.status, 404);
  assert.match(again.json.detail, /the reservation has ended: .*; reserve again/, 'as its node tells it');
});
