// A thousand viewers join at once while others watch: how soon all play, and what the others notice.

import { Load } from '../harness/load.mjs';
import { holdings } from '../harness/proc.mjs';
import { pause } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure } from './figures.mjs';
import { startCameras } from './generator.mjs';

const RUNNING = 50;
const STORM = Number(process.env.STORM ?? 1_000);
const ALL_PLAYING_MS_MAX = 15_000;
/** Before the storm, and from its begin on. */
const CALM_MS = 5_000;
const STORM_MS = 20_000;

await benchmark(new World('bench-storm'), async (world) => {
  const cameras = await startCameras(world, 1);
  const manifold = await world.manifold({
    ...ROOM_FOR_ALL,
    cameras: [{ id: 'cam', url: cameras.url(0), on_demand: false }],
  });
  await manifold.cameraIs('cam', 'live');
  const watch = ['--whep', `${manifold.url}/whep/cam`, '--reserve', manifold.url, '--quiet'];
  const running = new Load(world, [...watch, '--viewers', `${RUNNING}`, '--duration', `${CALM_MS + STORM_MS}ms`]);
  await pause(CALM_MS);
  const before = await manifold.cpuSeconds();
  const began = Date.now() - running.started;
  const duration = `${STORM_MS - 2_000}ms`;
  const storm = new Load(world, [...watch, '--viewers', `${STORM}`, '--at-once', '--duration', duration]);
  const [stormed, watched] = [await storm.report(), await running.report()];
  const { residentKb } = await holdings(manifold.pid);

  const { joins, join_ms: joinMs, timeline } = stormed;
  const allPlaying = timeline.find((look) => look.playing === STORM);
  const pauses = (low, high) =>
    Math.max(0, ...watched.timeline.filter(({ at_ms: at }) => at > low && at <= high).map((look) => look.gap_ms_max));
  return {
    join_ms: joinMs,
    figures: [
      figure(`${STORM} joins at once: all playing after`, 'ms', joins.last_keyframe_ms ?? NaN, ALL_PLAYING_MS_MAX),
      figure(`${STORM} joins at once: failed`, '', joins.failed + (allPlaying ? 0 : STORM - joins.played), 1),
      figure('first keyframe, p50', 'ms', joinMs.first_keyframe?.p50 ?? NaN),
      figure('first keyframe, p99', 'ms', joinMs.first_keyframe?.p99 ?? NaN),
      figure('CPU of the server, a join with what it watched', 'ms', ((await manifold.cpuSeconds()) - before) * 1e3 / STORM),
      figure(`${RUNNING} running viewers: packets lost`, '', watched.media.lost, 1),
      figure(`${RUNNING} running viewers: longest pause before`, 'ms', pauses(2_000, began)),
      figure(`${RUNNING} running viewers: longest pause in the storm`, 'ms', pauses(began, Infinity)),
      figure('running viewers that failed', '', watched.joins.failed, 1),
      figure('resident after the storm', 'MB', residentKb / 1e3),
    ],
  };
});
