// SIGTERM and Ctrl-C: viewers are told, leases end, the exit code is 0, all within five seconds.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

for (const signal of ['SIGTERM', 'SIGINT']) {
  scenario(`${signal} with a viewer ends the server within 5 s with exit code 0`, async (world) => {
    const camera = await world.camera();
    const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264aac') }] });
    const viewer = await world.open(`${manifold.url}/?open=cam-1`);
    await viewer.plays('cam-1');

    const asked = Date.now();
    manifold.child.signal(signal);
    await until('the server has ended', () => !manifold.child.alive, { within: 8_000 });

    assert.ok(Date.now() - asked < 5_000, `it took ${Date.now() - asked} ms`);
    assert.equal(manifold.child.code, 0);
    await until('the viewer was told', async () => (await viewer.tile('cam-1')).state !== 'playing', {
      within: 3_000,
    });
    await until('the camera was let go', async () => (await camera.connections()) === 0, { within: 2_000 });
  });
}
