// A viewer who comes in the middle of a group of pictures does not wait for the next keyframe.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';

scenario('a late viewer sees the picture long before the next keyframe', async (world) => {
  // A keyframe every ten seconds: waiting for one would be unmistakable.
  const camera = await world.camera({ fps: 15, gop: 150 });
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const first = await world.open(`${manifold.url}/?open=cam-1`);
  await first.plays('cam-1');
  await first.advances('cam-1', 30, 15_000);
  const browser = await world.browser();

  const joins = [];
  for (let i = 0; i < 3; i++) {
    const late = await world.open(`${manifold.url}/?open=cam-1`, { browser });
    const tile = await late.plays('cam-1');
    joins.push(tile.firstFrameMs);
    // Against who was there before, on the same busy machine: 22 frames are 1.5 s.
    const there = await first.stripOf('cam-1');
    const { frame } = await late.stripOf('cam-1');
    assert.ok(frame > there.frame - 22, `what is shown is live, not the cached past: ${there.frame - frame} frames behind`);
    await late.close();
  }

  const fastest = Math.min(...joins);
  assert.ok(fastest < 1_000, `first frames after ${joins} ms`);
});
