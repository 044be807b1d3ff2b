// Manifold beside Janus and Pion: the same camera, the same viewers, one after the other in one run.
//
// The camera is one of `manifold bench cameras`. Manifold pulls it; the others get its pictures as RTP
// from GStreamer, as they cannot pull. Viewers are `manifold load`, who take each datagram by itself, as
// from a network. What counts is each server's own CPU and memory, read from /proc.

import { join } from 'node:path';

import { Load } from '../harness/load.mjs';
import { part, root } from '../harness/parts.mjs';
import { cpuSeconds, holdings } from '../harness/proc.mjs';
import { Child } from '../harness/process.mjs';
import { pause } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure } from './figures.mjs';
import { startCameras } from './generator.mjs';
import { PAYLOAD_TYPE, startJanus } from './janus.mjs';

const VIEWERS = Number(process.env.VIEWERS ?? 100);
const JOIN_RATE = 50;
/** What the first viewer gets, who comes and leaves before all others. */
const OPENING_MS = 4_000;
const SETTLE_MS = 4_000;
const MEASURE_MS = 10_000;
const MEASUREMENTS_MAX = 3;
/** Of the first server's packets that have to come for a measurement to count. */
const SHARE_MIN = 0.95;

await benchmark(new World('bench-compare'), async (world) => {
  const cameras = await startCameras(world, 1);
  const found = [];
  for (const start of [startManifold, startPion, startJanus]) {
    const rival = await start(world, cameras.url(0));
    const feed = rival.rtp && feedRtp(world, cameras.url(0), rival);
    found.push(await measureWhole(world, rival, found[0]));
    await feed?.stop();
    await rival.stop?.();
  }
  const [ours] = found;
  return {
    viewers: VIEWERS,
    rivals: found,
    figures: found.flatMap(({ name, usAPacket, kbFirst, kbAViewer, packetsASecond, failed, lost, keyframeP50 }) => [
      figure(`${name}, ${VIEWERS} viewers: CPU a packet`, 'us', usAPacket),
      figure(`${name}: packets to viewers`, '/s', packetsASecond),
      figure(`${name}: CPU a packet, times Manifold's`, 'x', usAPacket / ours.usAPacket),
      figure(`${name}: memory a viewer`, 'KB', kbAViewer),
      figure(`${name}: memory that the first viewer leaves behind`, 'KB', kbFirst),
      figure(`${name}: first keyframe, p50`, 'ms', keyframeP50),
      figure(`${name}: viewers failed`, '', failed),
      figure(`${name}: packets lost`, '', lost),
    ]),
  };
});

/** Measures again where far less came than from the first server: then the machine was busy with others. */
async function measureWhole(world, rival, first) {
  const start = await measure(world, rival);
  let best = start;
  for (let left = MEASUREMENTS_MAX - 1; left > 0; left -= 1) {
    if (best.packetsASecond > SHARE_MIN * (first ?? best).packetsASecond) break;
    const next = await measure(world, rival);
    if (next.packetsASecond > best.packetsASecond) best = next;
  }
  // What an earlier measurement grew is there already.
  return { ...best, kbFirst: start.kbFirst, kbAViewer: start.kbAViewer };
}

async function measure(world, { name, pid, whep, reserve }) {
  const idle = await holdings(pid);
  const watch = ['--whep', whep, ...(reserve ? ['--reserve', reserve] : []), '--no-offload', '--quiet'];
  // What a server sets up once, for its first viewer, is no memory a viewer.
  const opener = new Load(world, [...watch, '--viewers', '1', '--duration', `${OPENING_MS}ms`]);
  await opener.report();
  const before = await holdings(pid);
  const load = new Load(world, [...watch, '--viewers', `${VIEWERS}`, '--rate', `${JOIN_RATE}`]);
  await pause((VIEWERS / JOIN_RATE) * 1e3 + SETTLE_MS);
  const begin = { at: Date.now() - load.started, cpu: await cpuSeconds(pid) };
  await pause(MEASURE_MS);
  const end = { at: Date.now() - load.started, cpu: await cpuSeconds(pid) };
  const watched = await holdings(pid);
  const report = await load.finish();

  const seconds = (end.at - begin.at) / 1e3;
  const rate = packetRate(report.timeline, begin.at, end.at);
  return {
    name,
    usAPacket: ((end.cpu - begin.cpu) / (rate * seconds)) * 1e6,
    kbFirst: (before.residentKb - idle.residentKb) * 1.024,
    kbAViewer: ((watched.residentKb - before.residentKb) * 1.024) / VIEWERS,
    packetsASecond: rate,
    failed: report.joins.failed,
    lost: report.media.lost,
    keyframeP50: report.join_ms.first_keyframe?.p50 ?? NaN,
  };
}

/** Packets a second that the viewers got between two moments. */
function packetRate(timeline, from, to) {
  const looks = timeline.filter(({ at_ms: at }) => at >= from && at <= to);
  const [first, last] = [looks[0], looks.at(-1)];
  return ((last.packets - first.packets) / (last.at_ms - first.at_ms)) * 1e3;
}

async function startManifold(world, camera) {
  const manifold = await world.manifold({ ...ROOM_FOR_ALL, cameras: [{ id: 'cam', url: camera, on_demand: false }] });
  await manifold.cameraIs('cam', 'live');
  const stop = () => manifold.child.stop();
  return { name: 'Manifold', pid: manifold.pid, whep: `${manifold.url}/whep/cam`, reserve: manifold.url, stop };
}

async function startPion(world) {
  const program = world.file('pion');
  const env = { GOPATH: '/usr/share/gocode', GO111MODULE: 'off' };
  const build = new Child('go build', 'go', ['build', '-o', program, '.'], {
    cwd: join(root, 'bench/pion'),
    env,
    log: world.file('go.log'),
  });
  if ((await build.ended) !== 0) throw new Error(`Pion does not build: ${build.tail(5)}`);
  const child = new Child('pion', program, [], { log: world.file('pion.log') });
  world.own(child);
  const [, http, rtp] = await child.says(/"http":(\d+),"rtp":(\d+)/);
  return { name: 'Pion', pid: child.pid, rtp, whep: `http://127.0.0.1:${http}/whep`, stop: () => child.stop() };
}

/** The camera's pictures as RTP, cut into packets of Manifold's size. */
function feedRtp(world, camera, { name, rtp }) {
  const script = join(root, 'bench/rtp_feed.py');
  const args = [script, '--camera', camera, '--port', `${rtp}`, '--payload-type', `${PAYLOAD_TYPE}`];
  const child = new Child(`feed of ${name}`, part('python'), args, { log: world.file('feed.log') });
  world.own(child);
  return child;
}
