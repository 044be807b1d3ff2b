// Delay, loss, a bottleneck and an address that changes, between Chromium and the server: what they cost a
// viewer is little, since packets are sent again, and a thin line gets what it carries.
//
// The link is a program of its own (net/link.py) and needs root. Each scenario opens the page over a good
// link, so that what is looked at is the media plane and not the page's way through a bad one.

import assert from 'node:assert/strict';

import { pause, until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/** In every window of this length a picture must be decoded, or it is seen to stand still. */
const WINDOW_MS = 4_000;
/** Of the test cameras, unless they are told another one. */
const CAMERA_FPS = 15;
/** A line that is good again carries all of the stream after this time at the latest. */
const RECOVERED_WITHIN = 45_000;

for (const { loss, jitter_ms, least } of [
  { loss: 0.05, jitter_ms: 5, least: 0.7 },
  { loss: 0.2, jitter_ms: 0, least: 0.4 },
]) {
  scenario(`80 ms of round trip and ${loss * 100} % of loss: packets come again, the picture plays on`, async (world) => {
    const { viewer, link, manifold } = await behindLink(world, { camera: { kbit: 2_000 } });
    const before = await counted(manifold, 'manifold_repairs_total');

    await link.set({ delay_ms: 40, jitter_ms, loss, seed: 1 });

    const decoded = await keepsPicture(viewer, 5);
    const share = decoded.reduce((sum, count) => sum + count) / ((CAMERA_FPS * 5 * WINDOW_MS) / 1_000);
    assert.ok(share > least, `${share} of all pictures: ${decoded} in windows of ${WINDOW_MS} ms`);
    const repairs = (await counted(manifold, 'manifold_repairs_total')) - before;
    assert.ok(repairs > 10, `${repairs} lost packets were sent again`);
    assert.ok((await counted(manifold, 'manifold_nacks_total')) >= repairs);
    const { retransmittedPacketsReceived } = (await viewer.inbound('cam-1')).video;
    assert.ok(retransmittedPacketsReceived > 10, `${retransmittedPacketsReceived} of them arrived by RTX`);
    assert.deepEqual(viewer.errors, []);
    const did = await link.end();
    assert.ok(did.to_browser.lost > 20, JSON.stringify(did));
  });
}

scenario('a NAT that gives another port: the picture plays on', async (world) => {
  const { viewer, link } = await behindLink(world);

  await link.set({ nat: 1_000 });
  await viewer.advances('cam-1', 15, 30_000);
  await link.set({ nat: 2_000 });
  await viewer.advances('cam-1', 15, 30_000);

  // What the tile says is a look a second old, and may still be of the time without a path.
  await viewer.plays('cam-1');
  assert.deepEqual(viewer.errors, []);
});

scenario('a bottleneck of half of what the camera sends: paced, skipped, and the picture plays on', async (world) => {
  const { viewer, link, manifold } = await behindLink(world, { camera: { kbit: 2_500 } });

  await link.set({ rate_kbit: 1_000, delay_ms: 20 });

  const isLimited = async () => (await counted(manifold, 'manifold_viewers_limited')) === 1;
  await Promise.all([
    keepsPicture(viewer, 5),
    until('the line is found to be thin', isLimited, { within: 5 * WINDOW_MS }),
  ]);
  const skipped = await counted(manifold, 'manifold_frames_skipped_total');
  assert.ok(skipped > 0, 'what the line does not carry is skipped');

  await link.set({ rate_kbit: 0 });
  await playsAll(viewer, RECOVERED_WITHIN);
  const did = await link.end();
  assert.ok(did.to_browser.dropped > 20, JSON.stringify(did));
});

scenario('a bottleneck that the main stream does not fit through: the sub stream, all of it', async (world) => {
  const { viewer, link, manifold } = await behindLink(world, { camera: { kbit: 2_500 }, sub: '/small' });
  assert.equal((await viewer.tile('cam-1')).rendition, 'main');

  await link.set({ rate_kbit: 1_000, delay_ms: 20 });

  let tile;
  const isMoved = async () => {
    tile = await viewer.tile('cam-1');
    return tile.rendition === 'sub' && tile.switches === 1 && tile.width === 320;
  };
  await until('the page tells of the sub stream', isMoved, { within: 30_000, show: () => tile });
  assert.equal(tile.quality, 'auto', 'nobody asked for it');
  await playsAll(viewer, 15_000);
  const metrics = await manifold.metrics();
  assert.match(metrics, /manifold_switches_total\{to="sub",reason="line"\} 1/);
  const place = viewer.page.locator('[data-camera="cam-1"] [data-figure="stream"]');
  assert.equal(await place.textContent(), 'sub · 1×');
  assert.deepEqual(viewer.errors, []);
});

/** A page with one camera behind a good link. */
async function behindLink(world, { camera: options = {}, path = '/h264', sub } = {}) {
  const camera = await world.camera(options);
  const link = await world.link();
  const manifold = await world.manifold({
    ...link.settings,
    cameras: [{ id: 'cam-1', url: camera.url(path), sub_url: sub && camera.url(sub) }],
  });
  const browser = await world.browser({ program: link.wrapper });
  const viewer = await world.open(`${manifold.urls[1]}/?open=cam-1`, { browser });
  await viewer.plays('cam-1');
  return { camera, link, manifold, viewer };
}

/** A counter of the server's. */
async function counted(manifold, name) {
  const text = await manifold.metrics();
  const line = text.match(new RegExp(`^${name}(?:{[^}]*})? (\\S+)$`, 'm'));
  if (!line) throw new Error(`there is no metric ${name}`);
  return Number(line[1]);
}

/** Waits until as many pictures are decoded in a window as the camera sends, but for one a second. */
async function playsAll(viewer, within) {
  const looks = [];
  const all = async () => {
    const { framesDecoded } = (await viewer.inbound('cam-1')).video;
    looks.push({ at: performance.now(), framesDecoded });
    const now = looks.at(-1);
    const before = looks.findLast(({ at }) => at <= now.at - WINDOW_MS);
    const fps = before && ((now.framesDecoded - before.framesDecoded) * 1_000) / (now.at - before.at);
    return fps >= CAMERA_FPS - 1;
  };
  await until(`${CAMERA_FPS} frames a second`, all, { within, every: 500, show: () => looks.slice(-20) });
}

/** Looks at `windows` windows one after the other: pictures are decoded in each. */
async function keepsPicture(viewer, windows) {
  const decoded = async () => (await viewer.inbound('cam-1')).video?.framesDecoded ?? 0;
  const counts = [];
  let before = await decoded();
  for (let window = 0; window < windows; window++) {
    await pause(WINDOW_MS);
    const now = await decoded();
    counts.push(now - before);
    before = now;
  }
  assert.ok(counts.every((count) => count > 0), `decoded in windows of ${WINDOW_MS} ms: ${counts}`);
  return counts;
}
