// Five hundred cameras of 2 Mbit/s in, a thousand viewers out: CPU, memory, and how late frames are. And
// half of it first, because the cameras and the viewers take a part of the same machine.

import { Load } from '../harness/load.mjs';
import { cpuSeconds, holdings } from '../harness/proc.mjs';
import { pause } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure } from './figures.mjs';
import { startCameras } from './generator.mjs';

const CAMERAS = Number(process.env.CAMERAS ?? 500);
const VIEWERS = Number(process.env.VIEWERS ?? 1_000);
const JOIN_RATE = 100;
/** Of the viewers: those who come last, once all others play. Delays are theirs, without the joins. */
const WITNESSES_MAX = 50;
/** From the last join of the others to the first witness, and from there to what is measured. */
const SETTLE_MS = 5_000;
const WITNESSES_SETTLE_MS = 3_000;
const MEASURE_MS = 12_000;

await benchmark(new World('bench-park'), async () => {
  const half = await park(Math.ceil(CAMERAS / 2), Math.ceil(VIEWERS / 2));
  const whole = await park(CAMERAS, VIEWERS);
  return { figures: [...half, ...whole] };
});

/** Starts so many, measures, ends them all. */
async function park(cameraCount, viewers) {
  const world = new World(`bench-park-${cameraCount}`);
  try {
    return await measure(world, cameraCount, viewers);
  } finally {
    await world.end();
  }
}

async function measure(world, cameraCount, viewers) {
  const cameras = await startCameras(world, cameraCount);
  const all = Array.from({ length: cameraCount }, (_, index) => ({ id: cameras.name(index), url: cameras.url(index) }));
  const manifold = await world.manifold({ ...ROOM_FOR_ALL, cameras: all });
  const idle = await holdings(manifold.pid);
  const watch = (count) =>
    new Load(world, [
      ...['--whep', `${manifold.url}/whep/cam-{000..${cameras.name(cameraCount - 1).slice('cam-'.length)}}`],
      ...['--reserve', manifold.url, '--viewers', `${count}`, '--rate', `${JOIN_RATE}`, '--quiet'],
    ]);
  const witnessCount = Math.min(WITNESSES_MAX, Math.ceil(viewers / 10));
  const others = viewers - witnessCount;
  const crowd = watch(others);
  await pause((others / JOIN_RATE) * 1e3 + SETTLE_MS);
  const witnesses = watch(witnessCount);
  await pause(WITNESSES_SETTLE_MS);

  const pids = { server: manifold.pid, cameras: cameras.pid, crowd: crowd.child.pid, witnesses: witnesses.child.pid };
  const begin = await look(manifold, pids);
  await pause(MEASURE_MS);
  const end = await look(manifold, pids);
  const { residentKb, threads } = await holdings(manifold.pid);
  const reports = await Promise.all([crowd.finish(), witnesses.finish()]);
  const [, { delay_ms: delay }] = reports;

  const cores = (name) => (end[name] - begin[name]) / ((end.at - begin.at) / 1e3);
  const sum = (of) => of(reports[0]) + of(reports[1]);
  const rate = packetRate(reports[0], begin.at - crowd.started) + packetRate(reports[1], begin.at - witnesses.started);
  const of = `${cameraCount} cameras, ${viewers} viewers`;
  return [
    figure(`${of}: playing`, '', sum(({ timeline }) => timeline.at(-1).playing)),
    figure(`${of}: failed`, '', sum(({ joins }) => joins.failed), 1),
    figure(`${of}: packets to viewers`, '/s', rate),
    figure(`${of}: CPU of the server`, 'cores', cores('server')),
    figure(`${of}: CPU of the server, a packet to a viewer`, 'us', (cores('server') / rate) * 1e6),
    figure(`${of}: CPU of the cameras`, 'cores', cores('cameras')),
    figure(`${of}: CPU of the viewers`, 'cores', cores('crowd') + cores('witnesses')),
    figure(`${of}: resident`, 'MB', residentKb / 1e3),
    figure(`${of}: resident before the first viewer`, 'MB', idle.residentKb / 1e3),
    figure(`${of}: threads`, '', threads),
    figure(`${of}: frame captured to arrived, p50`, 'ms', delay?.p50 ?? NaN),
    figure(`${of}: frame captured to arrived, p99`, 'ms', delay?.p99 ?? NaN),
    figure(`${of}: packets lost on the way`, '', sum(({ media }) => media.lost)),
    figure(`${of}: frames the server left out`, '', end.leftOut - begin.leftOut),
  ];
}

async function look(manifold, pids) {
  const entries = Object.entries(pids).map(async ([name, pid]) => [name, await cpuSeconds(pid)]);
  const used = Object.fromEntries(await Promise.all(entries));
  const at = Date.now();
  const [, leftOut] = (await manifold.metrics()).match(/^manifold_send_drops_total (\d+)/m);
  return { at, leftOut: Number(leftOut), ...used };
}

/** Packets a second that these viewers got from a moment on. */
function packetRate({ timeline }, from) {
  const looks = timeline.filter(({ at_ms: at }) => at >= from);
  const [first, last] = [looks[0], looks.at(-1)];
  return ((last.packets - first.packets) / (last.at_ms - first.at_ms)) * 1e3;
}
