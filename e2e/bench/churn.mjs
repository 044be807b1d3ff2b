// Ten thousand joins and leaves: what of them stays behind.

import { Load } from '../harness/load.mjs';
import { holdings } from '../harness/proc.mjs';
import { until } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure } from './figures.mjs';

const JOINS = Number(process.env.JOINS ?? 10_000);
const AT_ONCE = 32;
/** Tables and the allocator's arenas have their size after these. */
const WARM_UP = JOINS / 5;
/** The allocator keeps what it was given back, in pieces that differ from run to run. */
const GROWTH_KB_MAX = 2_000;

await benchmark(new World('bench-churn'), async (world) => {
  const manifold = await world.manifold({
    ...ROOM_FOR_ALL,
    cameras: [{ id: 'cam', url: 'test://?width=320&height=180&fps=15&gop=15', on_demand: false }],
  });
  await manifold.cameraIs('cam', 'live');
  await join(world, manifold, WARM_UP);
  const before = await rest(manifold);
  const cpu = await manifold.cpuSeconds();
  const report = await join(world, manifold, JOINS);
  const used = (await manifold.cpuSeconds()) - cpu;
  const after = await rest(manifold, before);

  const grown = (name) => after[name] - before[name];
  return {
    before,
    after,
    figures: [
      figure(`${JOINS} joins and leaves: failed`, '', report.joins.failed + JOINS - report.joins.left, 1),
      figure('memory more than before', 'KB', grown('residentKb'), GROWTH_KB_MAX),
      figure('sockets and files more than before', '', grown('files'), 1),
      figure('threads more than before', '', grown('threads'), 1),
      figure('leases left', '', after.leases, 1),
      figure('viewers left', '', after.viewers, 1),
      figure('joins a second', '/s', report.joins.played / report.seconds),
      figure('CPU of the server, a join and leave', 'ms', (used * 1e3) / JOINS),
      figure('first keyframe, p99', 'ms', report.join_ms.first_keyframe?.p99 ?? NaN),
    ],
  };
});

function join(world, manifold, joins) {
  const address = ['--whep', `${manifold.url}/whep/cam`, '--reserve', manifold.url];
  return new Load(world, [...address, '--viewers', `${AT_ONCE}`, '--joins', `${joins}`, '--at-once', '--quiet']).report();
}

/** What the server holds when nobody watches; waits a little for what is on its way out. */
async function rest(manifold, before) {
  let held;
  await until(
    'nothing is on its way out',
    async () => {
      const stats = await manifold.stats();
      held = { ...(await holdings(manifold.pid)), leases: stats.active_streams, viewers: stats.total_viewers };
      return held.leases === 0 && held.viewers === 0 && held.files <= (before?.files ?? Infinity);
    },
    // What does not come to rest is a finding, told by the figures.
    { within: 15_000 },
  ).catch(() => {});
  return held;
}
