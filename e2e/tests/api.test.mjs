// What dashboards and scripts read: cameras, rooms, health and metrics, as the API reference has them.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';

const config = {
  cameras: [
    { id: 'cam-1', name: 'Sheikh Zayed Road', name_ar: 'شارع الشيخ زايد', url: 'test://', location: 'Exit 41' },
    { id: 'cam-2', url: 'rtsp://admin:secret@127.0.0.1:1/stream1', sub_url: 'rtsp://admin:secret@127.0.0.1:1/stream2' },
  ],
};

scenario('the cameras are listed, one by one and by what is asked, without credentials', async (world) => {
  const manifold = await world.manifold(config);

  const list = await manifold.get('/api/v1/cameras');
  assert.equal(list.total, 2);
  const one = await manifold.camera('cam-1');
  assert.equal(one.name_ar, 'شارع الشيخ زايد');
  assert.equal(one.location, 'Exit 41');
  assert.deepEqual([one.status, one.state, one.reason, one.viewer_count, one.pullers], ['ONLINE', 'idle', null, 0, 0]);
  const two = await manifold.camera('cam-2');
  assert.equal(two.url, 'rtsp://127.0.0.1:1/stream1');
  assert.equal(two.has_sub, true);
  const ids = async (query) => (await manifold.get(`/api/v1/cameras?${query}`)).cameras.map(({ id }) => id);
  assert.deepEqual(await ids('search=zayed'), ['cam-1']);
  assert.deepEqual(await ids('limit=1&offset=1'), ['cam-2']);
  assert.deepEqual(await ids('source=TAXI'), []);
  assert.deepEqual(await ids('status=ONLINE'), ['cam-1', 'cam-2']);
});

scenario('every listener serves every route', async (world) => {
  const manifold = await world.manifold({ ...config, listen: Array(4).fill('127.0.0.1:0') });

  assert.equal(manifold.urls.length, 4);
  for (const url of manifold.urls) {
    for (const path of ['/', '/health', '/metrics', '/rooms', '/api/v1/cameras', '/api/v1/stream/stats']) {
      assert.equal((await fetch(url + path)).status, 200, url + path);
    }
  }
});

scenario('the figures count what a viewer gets', async (world) => {
  const manifold = await world.manifold(config);
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  const metrics = await manifold.metrics();

  const value = (name) => Number(metrics.match(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm'))?.[1]);
  assert.equal(value('manifold_viewers_connected'), 1);
  assert.equal(value('manifold_pullers'), 1);
  assert.equal(value('manifold_sources{state="live"}'), 1);
  assert.equal(value('manifold_join_duration_seconds_count'), 1);
  assert.ok(value('manifold_join_duration_seconds_sum') < 5);
  assert.ok(value('manifold_packets_sent_total') > 10);
  assert.ok(value('manifold_bytes_sent_total') > 10_000);
  assert.ok(value('manifold_frames_in_total') > 1);
});

scenario('rooms, ingress, health and metrics tell of a running stream', async (world) => {
  const manifold = await world.manifold(config);
  assert.deepEqual((await manifold.get('/rooms')).rooms, []);
  await manifold.reserve('cam-1');
  await manifold.cameraIs('cam-1', 'live');

  const { rooms } = await manifold.get('/rooms');
  assert.deepEqual(rooms.map(({ name, num_participants }) => [name, num_participants]), [['camera_cam-1', 2]]);
  const health = await manifold.call('GET', '/health');
  assert.equal(health.status, 200);
  const metrics = await manifold.metrics();
  assert.match(metrics, /^cctv_streams_active\{source="TEST"\} 1$/m);
  assert.match(metrics, /^cctv_streams_limit\{source="TEST"\} 500$/m);

  const stopped = await manifold.call('DELETE', '/ingress/whip-pusher-cam-1');
  assert.ok(stopped.status === 200 || stopped.status === 204, `${stopped.status} ${stopped.text}`);
  assert.equal((await manifold.call('DELETE', '/ingress/whip-pusher-nothing')).status, 404);
});
