// Quotas: who is refused and told when to come back, who gives way to whom, limits that change live, and the
// WebSocket that tells of it.

import assert from 'node:assert/strict';

import { Socket } from '../harness/socket.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const METRO = { id: 'METRO', name: 'Metro', name_ar: 'مترو', limit: 1 };
const TAXI = { id: 'TAXI', name: 'Taxi', name_ar: 'تاكسي', limit: 5 };
const CAMERAS = [
  { id: 'cam-1', source: 'METRO', url: 'test://pattern' },
  { id: 'cam-2', source: 'TAXI', url: 'test://pattern' },
];

scenario('who gives way to a higher class reads why, in the page and by WHEP', async (world) => {
  const manifold = await world.manifold({ sources: [METRO, TAXI], cameras: CAMERAS });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const [{ reservation_id: watched }] = await reservations(manifold);

  const equal = await reserve(manifold, 'cam-1', { priority: 0 });
  assert.equal(equal.status, 429, 'nobody gives way to his own class');
  const refused = equal.json.error;
  assert.deepEqual([refused.code, refused.source, refused.current, refused.limit], ['RATE_LIMIT_EXCEEDED', 'METRO', 1, 1]);
  assert.match(refused.message_en, /^Metro watches 1 of 1 streams at once/);
  assert.match(refused.message_ar, /مترو/);
  assert.ok(refused.retry_after >= 1 && refused.retry_after <= 14, 'a lease whose viewer is silent ends within 14 s');
  assert.equal(equal.headers.get('retry-after'), String(refused.retry_after));

  const higher = await reserve(manifold, 'cam-1', { priority: 5 });
  assert.equal(higher.status, 200);
  const tile = viewer.page.locator('[data-camera="cam-1"]');
  const sentence = 'A reservation of a higher class took its place.';
  await until('the page says why', async () => (await tile.textContent()).includes(sentence), {
    show: () => tile.textContent(),
  });

  const gone = await manifold.call('POST', `/api/v1/stream/heartbeat/${watched}`);
  assert.deepEqual([gone.status, gone.json.code], [404, 'PREEMPTED']);
  assert.equal(gone.json.detail, 'a reservation of a higher class took its place');
  assert.equal((await manifold.stats()).active_streams, 1);
  const metrics = await (await fetch(`${manifold.url}/metrics?format=prometheus`)).text();
  assert.match(metrics, /manifold_preemptions_total 1/);

  await manifold.release(higher.json.reservation_id);
  await viewer.plays('cam-1', 40_000);
});

scenario('source, total and user have their own refusals', async (world) => {
  const manifold = await world.manifold({
    sources: [METRO, TAXI],
    cameras: CAMERAS,
    quota: { total: 4, per_user: 2 },
  });
  assert.equal((await reserve(manifold, 'cam-1', { user: 'a' })).status, 200);
  assert.equal((await reserve(manifold, 'cam-1', { user: 'b' })).json.error.source, 'METRO');

  assert.equal((await reserve(manifold, 'cam-2', { user: 'a' })).status, 200);
  const user = (await reserve(manifold, 'cam-2', { user: 'a' })).json.error;
  assert.deepEqual([user.source, user.current, user.limit], ['USER', 2, 2]);
  assert.match(user.message_en, /^you watch 2 of your 2 streams/);
  assert.ok(user.retry_after >= 25 && user.retry_after <= 30, `the first lease without media ends in 30 s: ${user.retry_after}`);

  assert.equal((await reserve(manifold, 'cam-2', { user: 'b' })).status, 200);
  assert.equal((await reserve(manifold, 'cam-2', { user: 'b' })).status, 200);
  const total = (await reserve(manifold, 'cam-2', { user: 'c' })).json.error;
  assert.deepEqual([total.source, total.current, total.limit], ['TOTAL', 4, 4]);

  const wrong = await reserve(manifold, 'cam-2', { user: 'c', priority: 10 });
  assert.deepEqual([wrong.status, wrong.json.detail], [400, 'priority must be 0 to 9']);
});

scenario('a limit changes live, and dashboards are told of everything that happens', async (world) => {
  const manifold = await world.manifold({ sources: [METRO, TAXI], cameras: CAMERAS });
  const socket = await Socket.open(manifold.url, { path: '/ws/stream/stats' });
  const first = await socket.of('STREAM_STATS');
  assert.equal(first.data.active_streams, 0);
  assert.ok(Math.abs(Date.now() - Date.parse(first.timestamp)) < 60_000);

  const { json: held } = await reserve(manifold, 'cam-1', {});
  const counted = (message) => message.type === 'STREAM_STATS' && message.data.source_counts.METRO === 1;
  await socket.next('the new count', counted);
  const full = await socket.of('ALERT');
  assert.deepEqual([full.data.code, full.data.source, full.data.active], ['QUOTA_FULL', 'METRO', true]);

  const raised = await manifold.call('PUT', '/api/v1/sources/METRO/limit', { body: { limit: 7 } });
  assert.deepEqual(raised.json, { source: 'METRO', current: 1, limit: 7, available: 6 });
  const { data: update } = await socket.of('AGENCY_LIMIT_UPDATE');
  assert.deepEqual(update, { source: 'METRO', current: 1, limit: 7, previous_limit: 1, available: 6 });
  const over = await socket.of('ALERT');
  assert.deepEqual([over.data.code, over.data.active], ['QUOTA_FULL', false]);
  const second = await reserve(manifold, 'cam-1', {});
  assert.equal(second.status, 200, 'there is room');

  await manifold.call('PUT', '/api/v1/sources/METRO/limit', { body: { limit: 0 } });
  assert.equal((await manifold.stats()).source_counts.METRO, 2, 'who is there stays');
  const closed = (await reserve(manifold, 'cam-1', {})).json.error;
  assert.match(closed.message_en, /its limit is 0/);
  await manifold.call('PUT', '/api/v1/sources/METRO/limit', { body: { limit: null } });
  const { sources, unit } = await manifold.get('/api/v1/sources');
  assert.equal(unit, 'viewer');
  assert.deepEqual(sources.map(({ id, limit, configured_limit }) => [id, limit, configured_limit]), [['METRO', 1, 1], ['TAXI', 5, 5]]);

  const state = (message) => message.type === 'CAMERA_STATUS' && message.data.camera_id === 'cam-1';
  assert.equal((await socket.next('the camera is called', state)).data.status, 'ONLINE');
  for (const { reservation_id: id } of [held, second.json]) await manifold.release(id);
  await socket.next('nobody watches', (message) => message.type === 'STREAM_STATS' && message.data.active_streams === 0);
  socket.messages = [];
  await socket.of('STREAM_STATS', { within: 8_000 });

  socket.tell({ type: 'RENEW', token: held.token });
  assert.match((await socket.of('ERROR')).data.message, /the reservation has ended: it was released|released/);
  socket.close();
});

scenario('a limit that was set while the server ran outlives its restart', async (world) => {
  const manifold = await world.manifold({ sources: [METRO, TAXI], cameras: CAMERAS });
  const limits = async () => {
    const { sources } = await manifold.get('/api/v1/sources');
    return sources.map(({ id, limit, configured_limit }) => [id, limit, configured_limit]);
  };
  const set = (source, limit) => manifold.call('PUT', `/api/v1/sources/${source}/limit`, { body: { limit } });
  assert.equal((await set('METRO', 3)).status, 200);
  assert.equal((await set('TAXI', 0)).status, 200);

  await manifold.restart();
  assert.deepEqual(await limits(), [['METRO', 3, 1], ['TAXI', 0, 5]]);
  assert.equal((await reserve(manifold, 'cam-2', {})).status, 429);
  assert.equal((await set('TAXI', null)).json.limit, 5);

  await manifold.child.kill();
  await manifold.launch(manifold.args, manifold.env);
  assert.deepEqual(await limits(), [['METRO', 3, 1], ['TAXI', 5, 5]]);
});

scenario('the socket of dashboards turns away pages of others, and what is no message', async (world) => {
  const manifold = await world.manifold({ sources: [METRO, TAXI], cameras: CAMERAS });
  const path = '/ws/stream/stats';
  const foreign = await Socket.open(manifold.url, { path, headers: { origin: 'https://evil.example' } });
  assert.equal(foreign.status, 403);
  const own = await Socket.open(manifold.url, { path, headers: { origin: manifold.url } });
  assert.equal(own.status, 101);
  assert.equal((await manifold.call('GET', path)).status, 426);

  own.text('no JSON');
  assert.match((await own.of('ERROR')).data.message, /RENEW/);
  for (let count = 0; count < 40; count += 1) own.text('{}');
  assert.equal(await own.end(), 1008, 'a flood ends it');

  const { json } = await reserve(manifold, 'cam-2', {});
  const viewer = await Socket.open(manifold.url, { path });
  viewer.tell({ type: 'RENEW', token: json.token });
  const renewed = await viewer.of('TOKEN');
  assert.notEqual(renewed.data.token, json.token);
  assert.ok(Date.parse(renewed.data.expires_at) > Date.now());
});

function reserve(manifold, camera, { user = 'tester', priority } = {}) {
  return manifold.call('POST', '/api/v1/stream/reserve', { body: { camera_id: camera, user_id: user, priority } });
}

/** The live ones, of the viewers in rooms. */
async function reservations(manifold) {
  const { rooms } = await manifold.get('/rooms/camera_cam-1');
  const viewers = rooms[0].participants.filter(({ identity }) => identity.startsWith('viewer_'));
  return viewers.map(({ identity }) => ({ reservation_id: identity.slice('viewer_'.length) }));
}
