// Five hundred cameras of 2 Mbit/s in, a thousand viewers out: CPU, memory, and how late frames are.

import { Load } from '../harness/load.mjs';
import { cpuSeconds, holdings } from '../harness/proc.mjs';
import { pause } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure } from './figures.mjs';
import { startCameras } from './generator.mjs';

const CAMERAS = Number(process.env.CAMERAS ?? 500);
const VIEWERS = Number(process.env.VIEWERS ?? 1_000);
const JOIN_RATE = 100;
/** From the last join on: until all play, and what is measured. */
const SETTLE_MS = 8_000;
const MEASURE_MS = 12_000;

await benchmark(new World('bench-park'), async (world) => {
  const cameras = await startCameras(world, CAMERAS);
  const manifold = await world.manifold({
    ...ROOM_FOR_ALL,
    cameras: Array.from({ length: CAMERAS }, (_, index) => ({ id: cameras.name(index), url: cameras.url(index) })),
  });
  const idle = await holdings(manifold.pid);
  const joining = (VIEWERS / JOIN_RATE) * 1e3;
  const load = new Load(world, [
    ...['--whep', `${manifold.url}/whep/cam-{000..${`${CAMERAS - 1}`.padStart(3, '0')}}`, '--reserve', manifold.url],
    ...['--viewers', `${VIEWERS}`, '--rate', `${JOIN_RATE}`, '--quiet'],
    ...['--duration', `${joining + SETTLE_MS + MEASURE_MS + 1_000}ms`],
  ]);
  await pause(joining + SETTLE_MS);
  const pids = { server: manifold.pid, cameras: cameras.pid, viewers: load.child.pid };
  const begin = await cpuOf(pids);
  await pause(MEASURE_MS);
  const end = await cpuOf(pids);
  const { residentKb, threads } = await holdings(manifold.pid);
  const report = await load.report();

  const seconds = (end.at - begin.at) / 1e3;
  const cores = (name) => (end[name] - begin[name]) / seconds;
  const looks = report.timeline.filter((look) => look.at_ms > joining + SETTLE_MS);
  const [first, last] = [looks[0], looks.at(-1)];
  const rate = ((last.packets - first.packets) / (last.at_ms - first.at_ms)) * 1e3;
  return {
    figures: [
      figure(`${CAMERAS} cameras, ${VIEWERS} viewers: playing`, '', last.playing),
      figure('failed', '', report.joins.failed, 1),
      figure('packets to viewers', '/s', rate),
      figure('CPU of the server', 'cores', cores('server')),
      figure('CPU of the server, a packet to a viewer', 'us', (cores('server') / rate) * 1e6),
      figure('CPU of the cameras', 'cores', cores('cameras')),
      figure('CPU of the viewers', 'cores', cores('viewers')),
      figure('resident', 'MB', residentKb / 1e3),
      figure('resident without viewers', 'MB', idle.residentKb / 1e3),
      figure('threads', '', threads),
      figure('frame captured to arrived, p50', 'ms', report.delay_ms?.p50 ?? NaN),
      figure('frame captured to arrived, p99', 'ms', report.delay_ms?.p99 ?? NaN),
      figure('packets lost', '', report.media.lost),
    ],
  };
});

async function cpuOf(pids) {
  const entries = Object.entries(pids).map(async ([name, pid]) => [name, await cpuSeconds(pid)]);
  return { at: Date.now(), ...Object.fromEntries(await Promise.all(entries)) };
}
