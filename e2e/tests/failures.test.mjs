// Each way in which a camera can fail is a state of its own, with a sentence; none holds up another.

import assert from 'node:assert/strict';

import { freePort } from '../harness/camera.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const failures = [
  { path: '/nokeyframe', state: 'no_keyframe', status: 'ERROR', reason: /keyframe/ },
  { path: '/h264hi', state: 'b_frames', status: 'ERROR', reason: /B-frames/ },
  { path: '/h265hi', state: 'b_frames', status: 'ERROR', reason: /B-frames/ },
  { path: '/mjpeg', state: 'unsupported_codec', status: 'ERROR', reason: /JPEG/i },
  { path: '/wrong', state: 'not_found', status: 'ERROR', reason: /\/wrong/ },
];

scenario('broken cameras say what is wrong, and the good one beside them plays at once', async (world) => {
  const camera = await world.camera();
  const closed = await freePort();
  const broken = [
    ...failures.map((failure) => ({ ...failure, id: failure.path.slice(1), url: camera.url(failure.path) })),
    { id: 'closed', url: `rtsp://127.0.0.1:${closed}/h264`, state: 'unreachable', status: 'OFFLINE', reason: /reached/ },
  ];
  const manifold = await world.manifold({
    cameras: [...broken.map(({ id, url }) => ({ id, url })), { id: 'good', url: camera.url('/h264') }],
  });

  const ids = broken.map(({ id }) => id);
  const viewer = await world.open(`${manifold.url}/?open=${[...ids, 'good'].join(',')}`);

  await viewer.plays('good', 15_000);
  for (const { id, state, status, reason } of broken) {
    const shown = await manifold.cameraIs(id, state, 40_000);
    assert.equal(shown.status, status, id);
    assert.match(shown.reason, reason, id);
    const tile = await until(`the tile of ${id} says why`, async () => {
      const tile = await viewer.tile(id);
      return tile.reason?.match(reason) && tile;
    });
    assert.notEqual(tile.state, 'playing', id);
  }
  await viewer.advances('good');
});

scenario('a camera that is repaired plays for the viewer who waited', async (world) => {
  const port = await freePort();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: `rtsp://127.0.0.1:${port}/h264` }] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await manifold.cameraIs('cam-1', 'unreachable');

  await world.camera({ port });

  await viewer.plays('cam-1', 45_000);
});
