// A camera is another server's: pulled there by WHEP as a viewer would, shown here.

import assert from 'node:assert/strict';

import { LEFT } from '../harness/browser.mjs';
import { freePort } from '../harness/camera.mjs';
import { ForeignServer } from '../harness/foreign.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

/** A camera, a server that pulls it, and one that pulls that server. */
async function chain(world, { listen = ['127.0.0.1:0'], auth } = {}) {
  const camera = await world.camera();
  const origin = await world.manifold({
    listen,
    ...(auth && { auth }),
    cameras: [{ id: 'cam-1', url: camera.url('/h264opus'), close_after: '1s' }],
  });
  const url = `${origin.url.replace('http', 'whep+http')}/whep/cam-1`;
  const edge = await world.manifold({ cameras: [{ id: 'far-1', url, close_after: '1s' }] });
  return { camera, origin, edge };
}

const viewersOf = async (manifold) => (await manifold.stats()).active_streams;

scenario('viewers of one server see and hear the camera of another, which is pulled once', async (world) => {
  const { camera, origin, edge } = await chain(world);
  const browser = await world.browser();
  const viewers = [];
  for (let index = 0; index < 3; index += 1) {
    viewers.push(await world.open(`${edge.url}/?open=far-1`, { browser }));
  }

  for (const viewer of viewers) await viewer.plays('far-1');

  const { last } = await viewers[0].advances('far-1');
  assert.deepEqual([last.width, last.height], [640, 360]);
  await viewers[1].hears('far-1', 440);
  assert.equal(await viewersOf(edge), 3);
  assert.equal(await viewersOf(origin), 1, 'the edge is one viewer');
  assert.equal(camera.connections(), 1);
  const shown = await edge.cameraIs('far-1', 'live');
  assert.deepEqual([shown.codec, shown.audio, shown.width], ['H264', 'opus', 640]);

  for (const viewer of viewers) await viewer.page.close();

  await until('the edge is left', async () => (await viewersOf(edge)) === 0, LEFT);
  await until('the origin is left too, and its camera', async () => {
    return (await viewersOf(origin)) === 0 && camera.connections() === 0;
  }, LEFT);
});

scenario('the edge renews its place: the picture outlives the token that it began with', async (world) => {
  const { origin, edge } = await chain(world, { auth: { token_ttl: '15s' } });
  const viewer = await world.open(`${edge.url}/?open=far-1`);
  await viewer.plays('far-1');

  // One each half of a token's life.
  const renewals = () => origin.logs.match(/"method":"POST","path":"\/api\/v1\/stream\/heartbeat\//g)?.length ?? 0;
  await until('three heartbeats came', () => renewals() >= 3, { within: 60_000, show: renewals });

  await viewer.advances('far-1');
  assert.equal((await edge.camera('far-1')).pulls_started, 1);
});

scenario('the origin is restarted: those who watch at the edge see its picture again', async (world) => {
  const { origin, edge } = await chain(world, { listen: [`127.0.0.1:${await freePort()}`] });
  const viewer = await world.open(`${edge.url}/?open=far-1`);
  await viewer.plays('far-1');
  await viewer.advances('far-1');

  await origin.child.kill();
  const down = await until('the edge says that it is down', async () => {
    const shown = await edge.camera('far-1');
    return ['lost', 'unreachable'].includes(shown.state) && shown;
  });
  assert.equal(down.status, 'OFFLINE');
  assert.equal(await viewersOf(edge), 1, 'the viewer keeps its lease');
  await origin.launch(origin.args, origin.env);

  await viewer.plays('far-1', 45_000);
  await viewer.advances('far-1');
  await viewer.hears('far-1', 440);
  const peers = await viewer.page.evaluate(() => window.testPeers.length);
  assert.equal(peers, 1, 'over the connection it had');
});

scenario('any WHEP server can be the origin, its token is used and never told', async (world) => {
  const foreign = await ForeignServer.start(world);
  const { host } = new URL(foreign.url);
  const url = (token, path) => `whep+http://${token}@${host}${path}`;
  const edge = await world.manifold({
    cameras: [
      // Sent on to /whep by a redirection.
      { id: 'good', url: url(foreign.token, '/moved'), close_after: '1s' },
      { id: 'wrong', url: url('canary-token-7f3a', '/whep') },
      { id: 'absent', url: url(foreign.token, '/nothing') },
      { id: 'nobody', url: `whep+http://127.0.0.1:${await freePort()}/whep/cam-1` },
    ],
  });
  const viewer = await world.open(`${edge.url}/?open=good`);

  await viewer.plays('good');

  assert.equal((await foreign.seen()).sessions, 1);
  for (const camera of ['wrong', 'absent', 'nobody']) await edge.reserve(camera);
  const wrong = await edge.cameraIs('wrong', 'unauthorized');
  assert.match(wrong.reason, /check the credentials in its url/);
  const absent = await edge.cameraIs('absent', 'not_found');
  assert.match(absent.reason, /no stream at \/nothing/);
  const nobody = await edge.cameraIs('nobody', 'unreachable');
  assert.match(nobody.reason, /127\.0\.0\.1:\d+ cannot be reached: .*refused/);

  await viewer.page.close();

  await until('it is told that we left', async () => (await foreign.seen()).ended === 1, LEFT);
  const { cameras } = await edge.get('/api/v1/cameras');
  const told = [edge.logs, await edge.metrics(), JSON.stringify(cameras)].join();
  assert.ok(!told.includes(foreign.token) && !told.includes('canary-token'), 'no token is told');
});
