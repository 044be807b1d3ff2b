// `manifold load`: many viewers of our own server, and of one that shares no code with it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { ForeignServer } from '../harness/foreign.mjs';
import { Load } from '../harness/load.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const card = 'test://?width=320&height=180&fps=15&gop=15';

scenario('viewers of a camera all play, lose nothing, and are gone when they leave', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: card }] });
  const args = ['--whep', `${manifold.url}/whep/cam-1`, '--reserve', manifold.url, '--viewers', '30', '--at-once'];
  const { code, report, child } = await load(world, [...args, '--duration', '5s', '--decode', '1']);

  assert.equal(code, 0, child.tail());
  assert.deepEqual(pick(report.joins, 'tried', 'played', 'left', 'failed'), [30, 30, 30, 0]);
  const { media } = report;
  assert.deepEqual(pick(media, 'lost', 'repeated', 'not_authentic', 'restarts'), [0, 0, 0, 0]);
  assert.ok(media.pictures > 30 * 15, `${media.pictures} pictures`);
  assert.ok(media.opened > 0 && media.opened < media.packets, `${media.opened} of ${media.packets} opened`);
  assert.ok(report.join_ms.first_keyframe.count === 30 && report.decoded_delay_ms.count > 0);
  assert.ok(child.output.includes('playing=30'), 'the plain lines tell how many play');
  await nobodyWatches(manifold);
});

scenario('joins and leaves leave nothing behind', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: card }] });
  const args = ['--whep', `${manifold.url}/whep/cam-1`, '--reserve', manifold.url, '--viewers', '8'];
  const { code, report, child } = await load(world, [...args, '--joins', '100']);

  assert.equal(code, 0, child.tail());
  assert.deepEqual(pick(report.joins, 'tried', 'played', 'left'), [100, 100, 100]);
  await nobodyWatches(manifold);
});

scenario('a refusal is told with its reason and fails the run', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: card }] });
  const { code, report } = await load(world, ['--whep', `${manifold.url}/whep/cam-1`, '--viewers', '3']);

  assert.equal(code, 1);
  assert.equal(report.joins.failed, 3);
  assert.equal(report.failures.length, 1, 'equal reasons are counted together');
  assert.match(report.failures[0].reason, /refused with 401/);
});

scenario('viewers of a foreign server play: redirected, with a token, and in the other DTLS role', async (world) => {
  const server = await ForeignServer.start(world);
  const args = ['--whep', `${server.url}/moved`, '--token', server.token, '--viewers', '2', '--duration', '6s'];
  const { code, report, child } = await load(world, args);

  assert.equal(code, 0, child.tail());
  assert.deepEqual(pick(report.joins, 'played', 'left', 'failed'), [2, 2, 0]);
  assert.ok(report.media.pictures > 60, `${report.media.pictures} pictures`);
  assert.deepEqual(pick(report.media, 'lost', 'not_authentic'), [0, 0]);
  const { ended, sessions } = await server.seen();
  assert.deepEqual([ended, sessions], [2, 0], 'each session was ended by DELETE');
});

async function nobodyWatches(manifold) {
  let stats;
  await until('no lease and no viewer is left', async () => {
    stats = await manifold.stats();
    return stats.active_streams === 0 && stats.total_viewers === 0;
  }, { within: 5_000, show: () => JSON.stringify(stats) });
}

/** Runs the tool to its end. */
async function load(world, args) {
  const { child, ...running } = new Load(world, args);
  await until('manifold load has ended', () => !child.alive, { within: 90_000, show: () => child.tail(3) });
  const report = JSON.parse(await readFile(running.json, 'utf8'));
  return { code: child.code, report, child };
}

function pick(object, ...keys) {
  return keys.map((key) => object[key]);
}
