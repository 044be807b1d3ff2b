// Reservations: one puller however many arrive at once, identities that never meet, counts that are exact.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('200 simultaneous reservations of one camera start one puller', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });

  const answers = await Promise.all(Array.from({ length: 200 }, () => manifold.reserve('cam-1')));

  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  const reservations = new Set(answers.map(({ json }) => json.reservation_id));
  assert.equal(reservations.size, 200);
  const shown = await manifold.cameraIs('cam-1', 'live');
  assert.equal(shown.viewer_count, 200);
  assert.equal(shown.pullers, 1);
  assert.equal(shown.pulls_started, 1);
  assert.equal(await camera.connections(), 1);
  const usages = answers.map(({ json }) => json.current_usage).sort((a, b) => a - b);
  assert.deepEqual(usages, Array.from({ length: 200 }, (_, i) => i + 1), 'each got a count of its own');

  const released = await Promise.all([...reservations].map((id) => manifold.release(id)));

  assert.deepEqual([...new Set(released.map((answer) => answer.status))], [200]);
  assert.equal((await manifold.stats()).active_streams, 0);
  await until('the puller is gone', async () => (await camera.connections()) === 0);
  assert.equal((await manifold.camera('cam-1')).pulls_started, 1);
});

scenario('one user on one camera twice: two identities, and both play', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const browser = await world.browser();
  const url = `${manifold.url}/?open=cam-1`;

  const first = await world.open(url, { browser });
  const second = await world.open(url, { browser });
  await first.plays('cam-1');
  await second.plays('cam-1');
  await first.advances('cam-1');

  const { rooms } = await manifold.get('/rooms/camera_cam-1');
  assert.equal(rooms[0].num_participants, 3, 'LiveKit counts the publisher too');
  const [a, b] = [await manifold.reserve('cam-1', 'same'), await manifold.reserve('cam-1', 'same')];
  assert.notEqual(identity(a.json.token), identity(b.json.token));
  assert.equal(identity(a.json.token), `viewer_${a.json.reservation_id}`);
  assert.equal((await manifold.camera('cam-1')).viewer_count, 4);
});

scenario('the counts are the leases: reserve, heartbeat, release, release again', async (world) => {
  const manifold = await world.manifold({
    sources: [
      { id: 'DUBAI_POLICE', name: 'Dubai Police', name_ar: 'شرطة دبي', limit: 2 },
      { id: 'METRO', name: 'Metro', name_ar: 'مترو', limit: 5 },
    ],
    quota: { total: 3 },
    cameras: [
      { id: 'cam-1', source: 'DUBAI_POLICE', url: 'test://' },
      { id: 'cam-2', source: 'METRO', url: 'test://' },
    ],
  });

  const first = await manifold.reserve('cam-1');
  assert.equal(first.status, 200);
  assert.equal(first.json.camera_id, 'cam-1');
  assert.equal(first.json.room_name, 'camera_cam-1');
  assert.equal(first.json.source, 'DUBAI_POLICE');
  assert.deepEqual([first.json.current_usage, first.json.limit], [1, 2]);
  assert.ok(new URL(first.json.whep_url).pathname === '/whep/cam-1');
  await manifold.reserve('cam-1');

  const full = await manifold.reserve('cam-1');
  assert.equal(full.status, 429);
  assert.equal(full.json.error.code, 'RATE_LIMIT_EXCEEDED');
  assert.deepEqual([full.json.error.source, full.json.error.current, full.json.error.limit], ['DUBAI_POLICE', 2, 2]);
  assert.match(full.json.error.message_en, /Dubai Police/);
  assert.match(full.json.error.message_ar, /شرطة دبي/);
  assert.ok(full.json.error.retry_after > 0);

  assert.equal((await manifold.reserve('cam-2')).status, 200);
  assert.equal((await manifold.reserve('cam-2')).status, 429, 'the total is used up');

  const beat = await manifold.call('POST', `/api/v1/stream/heartbeat/${first.json.reservation_id}`, { body: {} });
  assert.equal(beat.status, 200);
  assert.equal(beat.json.updated, true);
  assert.ok(beat.json.remaining_ttl > 0);
  assert.equal(identity(beat.json.token), identity(first.json.token));

  const stats = await manifold.stats();
  assert.equal(stats.active_streams, 3);
  assert.equal(stats.total_viewers, 3);
  assert.deepEqual(stats.source_counts, { DUBAI_POLICE: 2, METRO: 1 });
  assert.deepEqual(stats.total, { current: 3, limit: 3, percentage: 100, available: 0 });
  assert.equal(stats.camera_stats.find((row) => row.camera_id === 'cam-1').viewer_count, 2);

  const released = await manifold.release(first.json.reservation_id);
  assert.deepEqual(released.json, {
    reservation_id: first.json.reservation_id,
    source: 'DUBAI_POLICE',
    released: true,
    new_count: 1,
  });
  assert.equal((await manifold.release(first.json.reservation_id)).status, 404);
  assert.deepEqual((await manifold.stats()).source_counts, { DUBAI_POLICE: 1, METRO: 1 });
  const late = await manifold.call('POST', `/api/v1/stream/heartbeat/${first.json.reservation_id}`, { body: {} });
  assert.equal(late.status, 404);
});

scenario('a reservation without media ends 30 s after its last heartbeat', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://', close_after: '1s' }] });
  const start = Date.now();
  await manifold.reserve('cam-1');

  await until('the lease is gone', async () => (await manifold.stats()).active_streams === 0, { within: 35_000 });

  const lived = Date.now() - start;
  assert.ok(lived >= 29_000 && lived <= 33_000, `it lived ${lived} ms`);
});

/** The identity that a LiveKit token names. */
function identity(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).sub;
}
