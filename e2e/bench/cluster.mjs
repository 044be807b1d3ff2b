// Three nodes and a real store: what a node's death, and its end, cost those who watch at the others; and what
// it costs to be several.
//
// KILLS, HALTS and ENDS say how often a node goes, CAMERAS how many the cost is measured with.

import { cluster, originOf } from '../harness/cluster.mjs';
import { Load } from '../harness/load.mjs';
import { cpuSeconds } from '../harness/proc.mjs';
import { pause, until } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure, quantile } from './figures.mjs';
import { startCameras } from './generator.mjs';

const KILLS = Number(process.env.KILLS ?? 9);
const HALTS = Number(process.env.HALTS ?? 3);
const ENDS = Number(process.env.ENDS ?? 3);
const CAMERAS = Number(process.env.CAMERAS ?? 100);
/** Of the node that goes: each is its origin, and each is watched at each node. */
const CAMERAS_LOST = 12;
/** Places at that node that nobody has begun to watch by. */
const UNUSED = 5;
/** What is promised of a node that dies. */
const PICTURE_BACK_MS_MAX = 5_000;
const LEASES_BACK_MS_MAX = 15_000;
/** A node that ends gives its leases back itself, as any viewer's that leaves. */
const LEASES_GIVEN_MS_MAX = 5_000;
/** Until all of it is told as a failure. */
const PATIENCE = { within: 60_000, every: 20 };
const SETTLE_MS = 3_000;
const MEASURE_MS = 15_000;

await benchmark(new World('bench-cluster'), async () => {
  const { kills, halts, ends } = await losses();
  const figures = [
    ...lossFigures('is killed', kills, LEASES_BACK_MS_MAX),
    ...lossFigures('stands still', halts, LEASES_BACK_MS_MAX),
    ...lossFigures('ends', ends, LEASES_GIVEN_MS_MAX),
    ...(CAMERAS > 0 ? [...(await cost(1)), ...(await cost(3))] : []),
  ];
  return { kills, halts, ends, figures };
});

/** In a world of its own, which ends with it. */
async function inWorld(name, measure) {
  const world = new World(name);
  try {
    return await measure(world);
  } finally {
    await world.end();
  }
}

/** Nodes go one after the other, and come back. */
function losses() {
  return inWorld('bench-cluster-losses', async (world) => {
    const all = await start(world, 3, CAMERAS_LOST);
    const often = async (count, how) => {
      const rows = [];
      for (let round = 0; round < count; round += 1) rows.push(await lose(world, all, round % 3, how));
      return rows;
    };
    return {
      kills: await often(KILLS, 'SIGKILL'),
      halts: await often(HALTS, 'SIGSTOP'),
      ends: await often(ENDS, 'SIGTERM'),
    };
  });
}

/** So many nodes that watch so many cameras. */
async function start(world, nodeCount, cameraCount) {
  const source = await startCameras(world, cameraCount);
  const ids = Array.from({ length: cameraCount }, (_, index) => source.name(index));
  const cameras = ids.map((id, index) => ({ id, url: source.url(index) }));
  const { redis, nodes } = await cluster(world, nodeCount, cameras, undefined, ROOM_FOR_ALL);
  await until('all nodes are there', async () => (await redis.cli('ZCARD', 'stream:nodes:until')) === `${nodeCount}`);
  return { redis, nodes, ids };
}

/** One viewer of each camera, or `count` of all, at this node, when all of them play. */
async function watch(world, node, ids, count = ids.length) {
  const row = `cam-{000..${ids.at(-1).slice('cam-'.length)}}`;
  const load = new Load(world, [
    ...['--whep', `${node.url}/whep/${row}`, '--reserve', node.url, '--viewers', `${count}`, '--quiet'],
  ]);
  await until('all of them watch', async () => (await connected(node)) >= count, PATIENCE);
  return load;
}

async function connected(node) {
  const [, count] = (await node.metrics()).match(/^manifold_viewers_connected (\d+)$/m);
  return Number(count);
}

/** One node that all cameras are pulled by gets the signal, and is started anew; times in ms from the signal. */
async function lose(world, { redis, nodes, ids }, place, signal) {
  const lost = nodes[place];
  const others = nodes.filter((node) => node !== lost);
  const name = `n${place + 1}`;
  // Who watches first is the origin.
  const there = await watch(world, lost, ids);
  const watching = [];
  for (const node of others) watching.push(await watch(world, node, ids));
  for (let index = 0; index < UNUSED; index += 1) await lost.reserve(ids[index], 'who does not come');
  await pause(SETTLE_MS);
  const stay = others.length * ids.length;
  const count = async (node) => (await node.stats()).active_streams;
  const mirror = async () => Number(await redis.cli('GET', 'stream:count:TEST'));
  await until('the account is whole', async () => (await mirror()) === stay + ids.length + UNUSED, PATIENCE);

  const at = Date.now();
  lost.child.signal(signal);
  const since = (what, probe) => until(what, probe, PATIENCE).then(() => Date.now() - at);
  const found = {
    rehomed: since('all cameras have an origin', async () => {
      const origins = await Promise.all(ids.map((id) => originOf(redis, id)));
      return origins.every((origin) => origin !== '' && origin !== name);
    }),
    watched: since('those who watched are gone', async () => (await count(others[0])) <= stay + UNUSED),
    leases: Promise.all(
      others.map((node) => since('the leases are back', async () => (await count(node)) === stay)),
    ).then((times) => Math.max(...times)),
    mirror: since('the count for people is right', async () => (await mirror()) === stay),
  };
  const row = { node: name };
  for (const [what, time] of Object.entries(found)) row[what] = await time;
  // One that stands still does not hear of its end otherwise.
  await lost.child.kill();
  row.gap = await longestGap(others, watching, at);
  there.child.signal('SIGKILL');
  await lost.restart();
  await until('it is among the others', async () => (await redis.cli('ZCARD', 'stream:nodes:until')) === '3', PATIENCE);
  await until('nobody watches', async () => (await mirror()) === 0, PATIENCE);
  console.error(`${signal}: ${JSON.stringify(row)}`);
  return row;
}

/** The longest time without a picture at these nodes from `at` on. Ends the viewers. */
async function longestGap(nodes, watching, at) {
  for (const node of nodes) {
    const { cameras } = await node.get('/api/v1/cameras?limit=500');
    const dark = cameras.filter(({ state }) => state !== 'live').map(({ id }) => id);
    if (dark.length) throw new Error(`there is no picture of ${dark.join()} at ${node.url}`);
  }
  const reports = await Promise.all(watching.map((load) => load.finish()));
  const gaps = reports.flatMap(({ timeline }, index) =>
    timeline.filter((look) => look.at_ms >= at - watching[index].started).map((look) => look.gap_ms_max),
  );
  return Math.max(...gaps);
}

function lossFigures(how, rows, leasesMax) {
  const told = [
    ['longest time without a picture at the others', 'gap', PICTURE_BACK_MS_MAX],
    ['all its cameras have another origin', 'rehomed'],
    ['leases of those who watched are back', 'watched', leasesMax],
    ['all its leases are back, at both others', 'leases', leasesMax],
    ['stream:count is right', 'mirror', leasesMax],
  ];
  return rows.length === 0 ? [] : told.flatMap(([what, key, target]) => {
    const values = rows.map((row) => row[key]);
    const name = `a node ${how}, ${rows.length} times: ${what}`;
    return [
      figure(`${name}, median`, 'ms', quantile(values, 0.5)),
      figure(`${name}, longest`, 'ms', Math.max(...values), target),
    ];
  });
}

/** What the same viewers of the same cameras cost at so many nodes. */
function cost(nodeCount) {
  return inWorld(`bench-cluster-cost-${nodeCount}`, async (world) => {
    const all = await start(world, nodeCount, CAMERAS);
    await pause(SETTLE_MS);
    const idle = await consumption(all);
    const loads = [];
    for (const node of all.nodes) loads.push(await watch(world, node, all.ids, (CAMERAS * 3) / nodeCount));
    await pause(SETTLE_MS);
    const busy = await consumption(all);
    const reports = await Promise.all(loads.map((load) => load.finish()));
    const sum = (of) => reports.map(of).reduce((one, other) => one + other);
    const of = `${nodeCount} ${nodeCount === 1 ? 'node' : 'nodes'}, ${CAMERAS} cameras`;
    const here = `${of}, ${CAMERAS * 3} viewers`;
    return [
      figure(`${of}, no viewer: CPU of all nodes`, 'cores', idle.nodes),
      figure(`${of}, no viewer: calls of the store`, '/s', idle.calls),
      figure(`${of}, no viewer: CPU of the store`, 'cores', idle.store),
      figure(`${here}: playing`, '', sum(({ timeline }) => timeline.at(-1).playing)),
      figure(`${here}: failed`, '', sum(({ joins }) => joins.failed), 1),
      figure(`${here}: packets lost`, '', sum(({ media }) => media.lost)),
      figure(`${here}: CPU of all nodes`, 'cores', busy.nodes),
      figure(`${here}: CPU of the node that has the most to do`, 'cores', busy.most),
      figure(`${here}: calls of the store`, '/s', busy.calls),
      figure(`${here}: commands in them`, '/s', busy.commands),
      figure(`${here}: CPU of the store`, 'cores', busy.store),
    ];
  });
}

/** What nodes and store take, each second. */
async function consumption({ redis, nodes }) {
  const pids = [redis.child.pid, ...nodes.map(({ pid }) => pid)];
  const look = async () => ({ at: Date.now(), cpu: await Promise.all(pids.map(cpuSeconds)), ...(await storeCalls(redis)) });
  const begin = await look();
  await pause(MEASURE_MS);
  const end = await look();
  const seconds = (end.at - begin.at) / 1e3;
  const [store, ...cores] = end.cpu.map((used, index) => (used - begin.cpu[index]) / seconds);
  return {
    store,
    nodes: cores.reduce((one, other) => one + other),
    most: Math.max(...cores),
    calls: (end.calls - begin.calls) / seconds,
    commands: (end.commands - begin.commands) / seconds,
  };
}

/** Scripts that the store was asked to run, and commands that it executed, those of scripts among them. */
async function storeCalls(redis) {
  const lines = (await redis.cli('INFO', 'commandstats')).split('\n');
  const rows = lines.map((line) => line.match(/^cmdstat_([^:]+):calls=(\d+)/)).filter(Boolean);
  const calls = rows.filter(([, name]) => name === 'evalsha' || name === 'eval');
  const sum = (list) => list.reduce((all, [, , count]) => all + Number(count), 0);
  return { calls: sum(calls), commands: sum(rows) };
}
