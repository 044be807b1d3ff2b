// Viewers leave, by closing or by dying: the others play on, and in the end nothing is left.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { holds, until } from '../harness/wait.mjs';

scenario('browser 2 closes, browser 1 plays on; both closed, the puller goes', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });
  const first = await world.open(`${manifold.url}/?open=cam-1`);
  const second = await world.open(`${manifold.url}/?open=cam-1`);
  await first.plays('cam-1');
  await second.plays('cam-1');
  assert.equal((await manifold.camera('cam-1')).viewer_count, 2);
  assert.equal(await camera.connections(), 1, 'one puller for two browsers');
  await manifold.child.says(/Creating new stream resources \(first viewer\)/);
  await manifold.child.says(/Reusing existing stream resources for additional viewer/);
  await manifold.child.says(/Additional viewer joined existing stream/);

  await second.close();

  await until('the second lease is gone', async () => (await manifold.stats()).active_streams === 1, {
    within: 5_000,
  });
  await first.advances('cam-1', 20);
  assert.equal((await first.tile('cam-1')).state, 'playing');
  await manifold.child.says(/Viewer disconnected - stream resources kept for remaining viewers/);

  await first.close();

  await until('nothing is left', () => isIdle(manifold, camera), { within: 6_000 });
  await manifold.child.says(/Last viewer disconnected - cleaning up all stream resources/);
  await manifold.child.says(/All stream resources cleaned up \(last viewer\)/);
  assert.equal((await manifold.camera('cam-1')).pulls_started, 1);
});

scenario('the puller stays after the last viewer, and is gone within close_after, five seconds by default', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const { json } = await manifold.reserve('cam-1');
  await manifold.cameraIs('cam-1', 'live');

  await manifold.release(json.reservation_id);
  const released = Date.now();

  await holds('the puller stays', async () => (await camera.connections()) === 1, 3_000);
  await until('the puller is gone', () => camera.connections() === 0, { within: 7_000, every: 5 });
  const stayed = Date.now() - released;
  assert.ok(stayed >= 4_500 && stayed <= 5_000, `let go after ${stayed} ms`);
  await until('nothing is left', () => isIdle(manifold, camera));
});

scenario('a browser killed with SIGKILL loses its lease within 15 s', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });
  const doomed = await world.browser();
  const victim = await world.open(`${manifold.url}/?open=cam-1`, { browser: doomed });
  const witness = await world.open(`${manifold.url}/?open=cam-1`);
  await victim.plays('cam-1');
  await witness.plays('cam-1');

  await doomed.kill();

  await until('its lease is gone', async () => (await manifold.stats()).active_streams === 1, {
    within: 15_000,
  });
  await witness.advances('cam-1');
});

/** No lease, no puller, and no connection at the camera. */
async function isIdle(manifold, camera) {
  const [shown, stats] = [await manifold.camera('cam-1'), await manifold.stats()];
  const rooms = await manifold.get('/rooms');
  return (
    shown.pullers === 0 &&
    shown.viewer_count === 0 &&
    shown.state === 'idle' &&
    stats.active_streams === 0 &&
    stats.source_counts.TEST === 0 &&
    rooms.rooms.length === 0 &&
    (await camera.connections()) === 0
  );
}
