// No config, no hardware: four cameras that are encoded only while somebody watches.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { pause, until } from '../harness/wait.mjs';

scenario('without a config four synthetic cameras play, encoded only while watched', async (world) => {
  const manifold = await world.bareManifold();
  const { cameras, total } = await manifold.get('/api/v1/cameras');
  assert.equal(total, 4);
  assert.ok(cameras.every((camera) => camera.synthetic && camera.state === 'idle' && camera.pullers === 0));
  assert.deepEqual(cameras.map((camera) => camera.source).sort(), ['DUBAI_POLICE', 'METRO', 'PARKING', 'TAXI']);
  assert.match(manifold.logs, new RegExp(manifold.url.replaceAll('.', '\\.')), 'the address of the page is told');
  assert.ok((await idleLoad(manifold)) < 0.05, 'nothing is encoded before the first viewer');

  const ids = cameras.map((camera) => camera.id);
  const viewer = await world.open(`${manifold.url}/?open=${ids.join(',')}`);
  for (const id of ids) await viewer.plays(id, 30_000);
  for (const id of ids) await viewer.advances(id, 10, 20_000);
  await until('the page shows the latency of each', async () =>
    (await viewer.tiles()).every((tile) => tile.latencyMs > 0 && tile.latencyMs < 5_000 && tile.frameNumber > 0),
  );
  assert.ok((await manifold.get('/api/v1/cameras')).cameras.every((camera) => camera.pullers === 1));

  await viewer.close();

  await until(
    'no camera is encoded any more',
    async () => (await manifold.get('/api/v1/cameras')).cameras.every((camera) => camera.pullers === 0),
    { within: 12_000 },
  );
  assert.ok((await idleLoad(manifold)) < 0.05, 'nothing is encoded after the last viewer');
});

/** The share of one core that the server uses over two seconds. */
async function idleLoad(manifold) {
  const before = await manifold.cpuSeconds();
  await pause(2_000);
  return ((await manifold.cpuSeconds()) - before) / 2;
}
