// One, two and nine tiles on the page; the clock of each is read back from its pixels.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';

for (const count of [1, 2, 9]) {
  scenario(`a wall of ${count} plays, each tile its own camera`, async (world) => {
    const camera = await world.camera();
    const ids = Array.from({ length: count }, (_, i) => `cam-${i + 1}`);
    const manifold = await world.manifold({
      cameras: ids.map((id) => ({ id, url: camera.url('/h264') })),
    });

    const viewer = await world.open(`${manifold.url}/?open=${ids.join(',')}`);
    for (const id of ids) await viewer.plays(id, 30_000);

    const strips = await Promise.all(ids.map((id) => viewer.advances(id, 10, 20_000)));
    for (const { last } of strips) assertClock(last);
    const tiles = await viewer.tiles();
    assert.deepEqual(tiles.map((tile) => tile.camera).sort(), [...ids].sort());
    for (const tile of tiles) {
      assert.deepEqual([tile.width, tile.height], [640, 360]);
      assert.ok(tile.fps > 5, `${tile.camera} runs at ${tile.fps} frames a second`);
      assert.ok(tile.bitrate > 0, `${tile.camera} has a bitrate`);
    }
    const stats = await manifold.stats();
    assert.equal(stats.active_streams, count);
    assert.equal(stats.camera_stats.length, count);
    assert.deepEqual(viewer.errors, []);
  });
}

/** The clock of the picture is that of this machine; how late it is, is for the benchmark to judge. */
function assertClock({ latencyMs }) {
  assert.ok(latencyMs > 0 && latencyMs < 5_000, `latency of ${latencyMs} ms`);
}
