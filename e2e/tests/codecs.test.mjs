// Cameras that send something else than H.264: who can play it does, and who cannot is told.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { Publisher, beyondLoopback } from '../harness/publisher.mjs';
import { chromium, firefoxWithoutH264, withPacketizationMode0 } from '../harness/sdp.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('an H.265 camera plays where H.265 is offered', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    media: beyondLoopback,
    cameras: [{ id: 'cam-1', url: camera.url('/h265'), on_demand: false }],
  });
  const shown = await manifold.cameraIs('cam-1', 'live');
  assert.deepEqual([shown.codec, shown.width, shown.height], ['H265', 640, 360]);

  const seen = await watch(world, manifold, 'H265');

  assertWhole(seen);
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

for (const { path, codec } of [
  { path: '/h264', codec: 'H264' },
  { path: '/vp8', codec: 'VP8' },
  { path: '/vp9', codec: 'VP9' },
]) {
  scenario(`${codec} plays, and a keyframe request is answered from the cached group`, async (world) => {
    // Twenty seconds from one keyframe to the next: what comes sooner is the cached group.
    const camera = await world.camera({ gop: 300 });
    const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url(path), on_demand: false }] });
    const shown = await manifold.cameraIs('cam-1', 'live');
    assert.deepEqual([shown.codec, shown.width, shown.height], [codec, 640, 360]);
    const viewer = await world.open(await anotherSite(world));
    await viewer.watch('cam-1', (await manifold.reserve('cam-1')).json, { asksForKeyframes: true });
    await viewer.advances('cam-1', 30);
    const before = (await viewer.inbound('cam-1')).video;
    assert.equal(before.codec, `video/${codec}`);

    await viewer.requestKeyframe('cam-1');

    let after;
    await until(
      'a second keyframe is decoded',
      async () => (after = (await viewer.inbound('cam-1')).video).keyFramesDecoded > before.keyFramesDecoded,
      { within: 8_000, show: () => after },
    );
    assert.ok(after.pliCount > before.pliCount, 'the browser asked for it');
    await viewer.advances('cam-1', 30);
    const end = (await viewer.inbound('cam-1')).video;
    assert.equal(end.pliCount, after.pliCount, 'it asks no more');
    assert.equal(end.packetsLost, 0);
  });
}

for (const codec of ['VP8', 'VP9', 'AV1']) {
  scenario(`Chromium publishes ${codec}, and Chromium plays it`, async (world) => {
    const manifold = await world.manifold({
      cameras: [
        { id: 'cam-1', url: 'test://?gop=30' },
        { id: 'cam-2', url: 'whip://key-of-twenty-four-characters' },
      ],
    });
    const site = await anotherSite(world);
    const publisher = await world.open(site);
    await publisher.watch('cam-1', (await manifold.reserve('cam-1')).json);
    await publisher.advances('cam-1');

    await publisher.publish('cam-1', `${manifold.url}/whip/key-of-twenty-four-characters`, codec);

    const viewer = await world.open(site);
    await viewer.watch('cam-2', (await manifold.reserve('cam-2')).json, { asksForKeyframes: true });
    await viewer.advances('cam-2', 30, 30_000);
    const { video } = await viewer.inbound('cam-2');
    assert.equal(video.codec, `video/${codec}`);
    const shown = await manifold.camera('cam-2');
    assert.deepEqual([shown.codec, shown.width, shown.height], [codec, video.frameWidth, video.frameHeight]);
    await viewer.requestKeyframe('cam-2');
    let after;
    await until(
      'a keyframe is decoded again',
      async () => (after = (await viewer.inbound('cam-2')).video).keyFramesDecoded > video.keyFramesDecoded,
      { within: 8_000, show: () => after },
    );
    await viewer.advances('cam-2', 30);
  });
}

for (const codec of ['VP8', 'VP9']) {
  scenario(`GStreamer publishes ${codec}, which Chromium plays on where picture ids of 7 bits wrap`, async (world) => {
    // No keyframe of its own accord: it would mend what broke at the wrap.
    const manifold = await publishedBy(world, codec, { gop: 10_000 });
    const viewer = await world.open(`${manifold.url}/?open=cam-1`);
    await viewer.plays('cam-1');
    const { last } = await viewer.advances('cam-1', 130, 30_000);
    assert.deepEqual([last.width, last.height], [640, 360]);
    const { video } = await viewer.inbound('cam-1');
    assert.equal(video.codec, `video/${codec}`);
    assert.equal((await manifold.camera('cam-1')).codec, codec);
  });
}

scenario('GStreamer publishes H.265, which GStreamer plays', async (world) => {
  const manifold = await publishedBy(world, 'H265');
  const seen = await watch(world, manifold, 'H265');
  assertWhole(seen);
});

/** A server whose cam-1 GStreamer publishes in this codec. */
async function publishedBy(world, codec, options) {
  const key = 'stream-key-of-the-codec-tests';
  const manifold = await world.manifold({ media: beyondLoopback, cameras: [{ id: 'cam-1', url: `whip://${key}` }] });
  await new Publisher(world, 'gstreamer', `${manifold.url}/whip/${key}`).start({ codec, ...options });
  return manifold;
}

/** An empty page that is not manifold's. */
async function anotherSite(world) {
  const site = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<p>another site'));
  world.after(() => site.close());
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${site.address().port}/`;
}

/** Every picture came out of the decoder as it was painted, and none is missing. */
function assertWhole(seen) {
  assert.deepEqual([seen.width, seen.height, seen.frame_gaps], [640, 360, 0]);
  assert.ok(seen.video_frames >= 30, `${seen.video_frames} frames`);
  assert.equal(seen.strips, seen.video_frames, 'all strips read well');
}

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
