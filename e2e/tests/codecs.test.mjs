// Cameras that send something else than H.264: who can play it does, and who cannot is told.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { chromium, firefoxWithoutH264, withPacketizationMode0 } from '../harness/sdp.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('an H.265 camera plays where H.265 is offered', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    media: { udp: '0.0.0.0:0' },
    cameras: [{ id: 'cam-1', url: camera.url('/h265'), on_demand: false }],
  });
  const shown = await manifold.cameraIs('cam-1', 'live');
  assert.deepEqual([shown.codec, shown.width, shown.height], ['H265', 640, 360]);

  const seen = await watch(world, manifold, 'H265');

  assert.deepEqual([seen.width, seen.height], [640, 360]);
  assert.ok(seen.strips >= 25, `${seen.strips} of ${seen.video_frames} strips read well`);
  assert.equal(seen.frame_gaps, 0, 'no frame is missing or doubled');
});

scenario('Chromium is told that the camera sends H.265, and what would help', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h265'), on_demand: false }] });
  await manifold.cameraIs('cam-1', 'live');
  const { json } = await manifold.reserve('cam-1');

  const refused = await manifold.whep('cam-1', json.token, chromium);

  assert.equal(refused.status, 406, refused.text);
  assert.match(refused.json.detail, /H\.?265/);
  assert.match(refused.json.detail, /H\.?264/);
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await until('the tile says why', async () => {
    const tile = await viewer.tile('cam-1');
    return tile.reason?.match(/H\.?265/) && tile;
  });
});

scenario('who takes no H.264 is told so by a camera that sends nothing else', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://', on_demand: false }] });
  await manifold.cameraIs('cam-1', 'live');
  const { json } = await manifold.reserve('cam-1');

  for (const [what, offer] of [
    ['Firefox ESR as Debian has it', firefoxWithoutH264],
    ['H264 in packetization-mode 0 alone', withPacketizationMode0(chromium)],
  ]) {
    const refused = await manifold.whep('cam-1', json.token, offer);
    assert.equal(refused.status, 406, `${what}: ${refused.text}`);
    assert.match(refused.json.detail, /H\.?264/, what);
  }
});

/** Runs GStreamer's viewer to its end; what it has seen. */
async function watch(world, manifold, codec) {
  const { json } = await manifold.reserve('cam-1', 'gstreamer');
  part('webrtcbin');
  const args = [join(root, 'viewers/gst_viewer.py'), '--url', json.whep_url, '--token', json.token, '--codec', codec];
  const child = new Child('GStreamer viewer', part('python'), args, { log: world.file('gstreamer.log') });
  world.own(child);
  await until('the GStreamer viewer has ended', () => !child.alive, { within: 60_000, show: () => child.tail(10) });
  assert.equal(child.code, 0, child.tail());
  return JSON.parse(child.output.trim().split('\n').at(-1));
}
