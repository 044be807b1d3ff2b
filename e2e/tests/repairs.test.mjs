// What loss costs a viewer: little, where packets are sent again; and what a thin line gets.
//
// The link is a program of its own (net/link.py) and needs root.

import assert from 'node:assert/strict';

import { pause } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

for (const { loss, least } of [
  { loss: 0.05, least: 0.7 },
  { loss: 0.2, least: 0.4 },
]) {
  scenario(`${loss * 100} % of loss over 80 ms: packets come again by RTX`, async (world) => {
    const { manifold, viewer, link } = await behindLink(world);
    const before = await viewer.inbound('cam-1');

    await link.set({ delay_ms: 40, loss, seed: 1 });
    await pause(15_000);

    const after = await viewer.inbound('cam-1');
    const counted = figures(await manifold.metrics());
    const decoded = after.video.framesDecoded - before.video.framesDecoded;
    assert.ok(decoded > least * 15 * 15, `${decoded} pictures in 15 s`);
    assert.ok(after.video.retransmittedPacketsReceived > 10, 'RTX arrived');
    assert.ok(counted.manifold_repairs_total > 10, JSON.stringify(counted));
    assert.ok(counted.manifold_nacks_total >= counted.manifold_repairs_total);
    assert.equal(viewer.errors.length, 0);
  });
}

scenario('a line half as thin as the stream: paced, skipped, and a picture all the same', async (world) => {
  const { manifold, viewer, link } = await behindLink(world);
  const { video } = await viewer.inbound('cam-1');
  const kbit = await rate(viewer);

  await link.set({ delay_ms: 20, rate_kbit: Math.round(kbit / 2), queue_ms: 300 });
  const seen = [];
  let frames = video.framesDecoded;
  for (let window = 0; window < 6; window++) {
    await pause(4_000);
    const counted = figures(await manifold.metrics());
    const now = (await viewer.inbound('cam-1')).video;
    seen.push({ decoded: now.framesDecoded - frames, lost: now.packetsLost, ...counted });
    frames = now.framesDecoded;
  }
  const last = seen.at(-1);
  assert.ok(seen.some((window) => window.manifold_viewers_limited === 1), 'the line was found to be thin');
  assert.ok(last.manifold_frames_skipped_total > 0, 'frames were skipped');
  assert.ok(seen.slice(1).every((window) => window.decoded > 0), `a picture in each window: ${JSON.stringify(seen)}`);

  await link.set({ rate_kbit: 0 });
  await viewer.advances('cam-1', 60, 20_000);
});

/** A page with one camera behind a good link. */
async function behindLink(world) {
  const camera = await world.camera({ kbit: 2_000 });
  const link = await world.link();
  const manifold = await world.manifold({
    ...link.settings,
    rtsp: { listen: '127.0.0.1:0' },
    cameras: [{ id: 'cam-1', url: camera.url('/h264') }],
  });
  const browser = await world.browser({ program: link.wrapper });
  const viewer = await world.open(`${manifold.urls[1]}/?open=cam-1`, { browser });
  await viewer.plays('cam-1');
  return { link, manifold, viewer };
}

/** What the stream takes, in kbit/s. */
async function rate(viewer) {
  const bytes = async () => (await viewer.inbound('cam-1')).video.bytesReceived;
  const [before, began] = [await bytes(), Date.now()];
  await pause(4_000);
  return ((await bytes()) - before) * 8 / (Date.now() - began);
}

/** The figures of Prometheus text that have no labels. */
function figures(text) {
  const lines = text.split('\n').map((line) => line.match(/^(manifold_(?:nacks|repairs|frames_skipped|viewers_limited|keyframe)\S*) ([\d.]+)$/));
  return Object.fromEntries(lines.filter(Boolean).map(([, name, value]) => [name, Number(value)]));
}
