// How a camera's streams are fetched: over TCP or UDP, the main or the sub stream, on demand or kept warm.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { holds } from '../harness/wait.mjs';

scenario('a camera pulled over UDP plays', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264aac'), transport: 'udp' }],
  });

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');
  await viewer.advances('cam-1', 20);
  await viewer.hears('cam-1', 440);
});

scenario('quality "low" brings the sub stream, and each stream has one puller', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), sub_url: camera.url('/small') }],
  });
  const [low, high] = [await manifold.reserve('cam-1', 'a', 'low'), await manifold.reserve('cam-1', 'b', 'high')];
  assert.equal(low.json.quality, 'low');
  const viewer = await world.open(manifold.url);

  await viewer.watch('low', low.json);
  await viewer.watch('high', high.json);

  const [small, large] = [await viewer.stripOf('low'), await viewer.stripOf('high')];
  assert.deepEqual([small.width, small.height], [320, 180]);
  assert.deepEqual([large.width, large.height], [640, 360]);
  assert.equal((await manifold.camera('cam-1')).pullers, 2);
  assert.equal(await camera.connections(), 2);
  assert.equal((await manifold.camera('cam-1')).viewer_count, 2);
});

scenario('a camera with on_demand = false is pulled without viewers, and after them', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), on_demand: false, close_after: '1s' }],
  });
  await manifold.cameraIs('cam-1', 'live');
  assert.equal((await manifold.camera('cam-1')).viewer_count, 0);

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  await viewer.close();

  await holds('the puller stays', async () => (await camera.connections()) === 1, 3_000);
  const shown = await manifold.camera('cam-1');
  assert.deepEqual([shown.state, shown.pulls_started], ['live', 1]);
});
