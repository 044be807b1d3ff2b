// A camera dies and comes back: the viewers who are there get its picture again without a hand moved.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('a camera killed and restarted plays again by itself', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264aac') }] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  await camera.kill();

  const down = await until('the camera is said to be down', async () => {
    const shown = await manifold.camera('cam-1');
    return ['lost', 'unreachable'].includes(shown.state) && shown;
  });
  assert.equal(down.status, 'OFFLINE');
  assert.ok(down.reason.length > 10, `a sentence: ${down.reason}`);
  const waiting = await until('the tile says that it waits, and why', async () => {
    const tile = await viewer.tile('cam-1');
    return tile.state !== 'playing' && tile.reason && tile;
  });
  assert.match(waiting.reason, /camera/i);
  const before = await manifold.stats();
  assert.equal(before.active_streams, 1, 'the viewer keeps its lease');

  await camera.start();

  await viewer.plays('cam-1', 45_000);
  await viewer.advances('cam-1');
  await viewer.hears('cam-1', 440);
  const again = await manifold.cameraIs('cam-1', 'live');
  assert.equal(again.reason, null);
  const peers = await viewer.page.evaluate(() => window.testPeers.length);
  assert.equal(peers, 1, 'over the connection it had');
});

scenario('a camera restarted with another resolution plays again by itself', async (world) => {
  const camera = await world.camera({ size: '640x360' });
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  await camera.kill();
  await camera.start({ size: '960x540' });

  await until(
    'the new resolution plays',
    async () => (await viewer.tile('cam-1')).width === 960,
    { within: 45_000, show: () => viewer.tile('cam-1') },
  );
  const { last } = await viewer.advances('cam-1');
  assert.deepEqual([last.width, last.height], [960, 540]);
  const shown = await manifold.cameraIs('cam-1', 'live');
  assert.deepEqual([shown.width, shown.height], [960, 540]);
});
