// Delay, loss, a bottleneck and an address that changes, between Chromium and the server.
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

scenario('80 ms of round trip and 3 % of loss: the picture plays on', async (world) => {
  const { viewer, link } = await behindLink(world);

  await link.set({ delay_ms: 40, jitter_ms: 5, loss: 0.03, seed: 1 });

  const decoded = await keepsPicture(viewer, 5);
  const fps = (decoded.reduce((sum, count) => sum + count) * 1_000) / (5 * WINDOW_MS);
  assert.ok(fps >= CAMERA_FPS / 2, `${fps} frames a second: ${decoded} in windows of ${WINDOW_MS} ms`);
  const did = await link.end();
  assert.ok(did.to_browser.lost > 10, JSON.stringify(did));
});

for (const loss of [0.05, 0.2]) {
  scenario(`${loss * 100} % of loss: the picture plays on`, async (world) => {
    const { viewer, link, manifold } = await behindLink(world);
    const before = await counted(manifold, 'manifold_repairs_total');

    await link.set({ delay_ms: 10, loss, seed: 1 });

    await keepsPicture(viewer, 5);
    const repairs = (await counted(manifold, 'manifold_repairs_total')) - before;
    assert.ok(repairs > 0, 'lost packets are sent again');
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

  const tile = await viewer.tile('cam-1');
  assert.equal(tile.state, 'playing');
  assert.deepEqual(viewer.errors, []);
});

scenario('a bottleneck of half of what the camera sends: the picture plays on', async (world) => {
  const { viewer, link, manifold } = await behindLink(world, { camera: { kbit: 2_500 } });

  await link.set({ rate_kbit: 1_000, delay_ms: 20 });

  await keepsPicture(viewer, 5);
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
    listen: ['127.0.0.1:0', `${link.here}:0`],
    media: { udp: `${link.here}:0` },
    auth: { allow_open_on_network: true },
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
