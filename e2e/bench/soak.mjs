// Hours of the same: cameras, viewers who stay, viewers who come and go, a voice and who hears it. What the
// server holds is looked at over and over, and at its end it holds what it held at its beginning.
//
// SOAK_MINUTES says how long, two hours unless told otherwise; SIGUSR2 ends it after its cycle. Each cycle has a crowd that joins and leaves
// and then a rest; the looks at rest are compared, those in between are there for the plot.

import { Load } from '../harness/load.mjs';
import { holdings } from '../harness/proc.mjs';
import { pause } from '../harness/wait.mjs';
import { CardSite } from '../harness/voice.mjs';
import { World } from '../harness/world.mjs';
import { ROOM_FOR_ALL, benchmark, figure, quantile } from './figures.mjs';
import { startCameras } from './generator.mjs';

const MINUTES = Number(process.env.SOAK_MINUTES ?? 120);
const CAMERAS = 20;
/** Viewers who stay from the beginning to the end. */
const RESIDENTS = 10;
/** Joins and leaves of each cycle, so many at once. */
const JOINS = 400;
const AT_ONCE = 16;
/** From the crowd's end to the look that counts: leases of 15 s, and what goes after them. */
const REST_MS = 20_000;
const LOOK_EVERY_MS = 60_000;
/** The allocator keeps what it was given back, in pieces that differ from cycle to cycle. */
const GROWTH_KB_MAX = 2_000;

await benchmark(new World('bench-soak'), async (world) => {
  const cameras = await startCameras(world, CAMERAS);
  const all = Array.from({ length: CAMERAS }, (_, index) => ({ id: cameras.name(index), url: cameras.url(index) }));
  const manifold = await world.manifold({ ...ROOM_FOR_ALL, cameras: all });
  const address = ['--whep', `${manifold.url}/whep/cam-{000..${cameras.name(CAMERAS - 1).slice('cam-'.length)}}`];
  const crowd = (args) => new Load(world, [...address, '--reserve', manifold.url, '--quiet', ...args]);
  const residents = crowd(['--viewers', `${RESIDENTS}`]);
  const { mouth, ear } = await voices(world, manifold);

  const begun = Date.now();
  const timeline = [];
  let isOver = false;
  const looking = (async () => {
    while (!isOver) {
      timeline.push({ at_s: (Date.now() - begun) / 1e3, ...(await holdings(manifold.pid)) });
      await pause(LOOK_EVERY_MS);
    }
  })();
  const rests = [];
  let failed = 0;
  let joins = 0;
  let isEnough = false;
  process.once('SIGUSR2', () => (isEnough = true));
  while (!isEnough && Date.now() - begun < MINUTES * 60e3) {
    const report = await crowd(['--viewers', `${AT_ONCE}`, '--joins', `${JOINS}`, '--at-once']).report();
    failed += report.joins.failed;
    joins += report.joins.left;
    await pause(REST_MS);
    const rest = { at_s: (Date.now() - begun) / 1e3, ...(await holdings(manifold.pid)) };
    rests.push(rest);
    const { residentKb, files, threads } = rest;
    console.error(`${Math.round(rest.at_s)} s, ${joins} joins: ${residentKb} KB, ${files} files, ${threads} threads`);
  }
  isOver = true;
  await looking;
  await ear.hears(600);
  await mouth.page.close();
  const { joins: stayed, media } = await residents.finish();

  const minutes = Math.round((Date.now() - begun) / 60e3);
  const grown = (name) => grownBy(rests.map((rest) => rest[name]));
  return {
    timeline,
    figures: [
      figure(`${minutes} minutes, ${joins} joins and leaves: failed`, '', failed + stayed.failed, 1),
      figure('memory at rest, last third over second third', 'KB', grown('residentKb'), GROWTH_KB_MAX),
      figure('memory at rest, at the end', 'MB', rests.at(-1).residentKb / 1e3),
      figure('sockets and files more', '', grown('files'), 1),
      figure('threads more', '', grown('threads'), 1),
      figure('packets lost by viewers who stayed', '', media.lost),
    ],
  };
});

/** How much larger the median of the last third is than that of the one before it: the first one warms up. */
function grownBy(values) {
  const third = Math.ceil(values.length / 3);
  return quantile(values.slice(-third), 0.5) - quantile(values.slice(-2 * third, -third), 0.5);
}

/** Somebody who speaks and somebody who hears, in one page. */
async function voices(world, manifold) {
  const site = await CardSite.start(world);
  const page = await site.page(await world.browser());
  const mouth = await page.open('mouth', manifold.url);
  await mouth.speak(600);
  const ear = await page.open('ear', manifold.url);
  await ear.listen();
  await ear.hears(600);
  return { mouth, ear };
}
