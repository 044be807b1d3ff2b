// A viewer goes between a camera's main and sub stream while it plays: no black picture, no stall longer
// than a keyframe interval, sound included.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { pause, until } from '../harness/wait.mjs';

/** Between two keyframes of the camera, in ms. */
const KEYFRAME_INTERVAL = 1_000;

scenario('a heartbeat with another quality switches a running picture, and back', async (world) => {
  const camera = await world.camera({ gop: 15 });
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264aac'), sub_url: camera.url('/small') }],
  });
  const { json: reservation } = await manifold.reserve('cam-1', 'tester', 'high');
  const viewer = await world.open(manifold.url);
  await viewer.watch('tile', reservation);
  await shows(viewer, 640);
  const watch = await startWatching(viewer);

  for (const [quality, width] of [['low', 320], ['high', 640], ['low', 320], ['auto', 640]]) {
    const { json } = await beat(manifold, reservation, { quality });
    assert.equal(json.quality, quality);
    await shows(viewer, width);
    await viewer.advances('tile', 15);
  }

  const seen = await watch.end();
  assert.ok(seen.stall <= KEYFRAME_INTERVAL, `no picture for ${seen.stall} ms`);
  assert.ok(seen.darkest > 30, `a picture was black: ${seen.darkest}`);
  assert.deepEqual(seen.widths, [640, 320, 640, 320, 640]);
  const { json } = await beat(manifold, reservation, {});
  assert.deepEqual([json.quality, json.rendition, json.switches], ['auto', 'main', 4]);
  const { video } = await viewer.inbound('tile');
  assert.equal(video.packetsLost, 0, 'no gap in sequence numbers');
  assert.equal(video.pliCount, 0, 'nothing had to be asked for again');
  const metrics = await manifold.metrics();
  assert.match(metrics, /manifold_switches_total\{to="sub",reason="quality"\} 2/);
  assert.match(metrics, /manifold_switches_total\{to="main",reason="quality"\} 2/);
  assert.match(metrics, /manifold_frames_skipped_total 0/, 'a larger stream is given time to be taken');
  const stats = await manifold.stats();
  assert.equal(stats.total.current, 1, 'one lease all the time');
  await until('the sub stream is let go', async () => (await manifold.camera('cam-1')).pullers === 1);
});

scenario('a tile that becomes small shows the sub stream, and a large one the main stream', async (world) => {
  const camera = await world.camera({ gop: 15 });
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264aac'), sub_url: camera.url('/small') }],
  });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  await tells(viewer, { quality: 'auto', rendition: 'main', width: 640 });
  const watch = await startWatching(viewer, 'cam-1');

  await viewer.page.setViewportSize({ width: 400, height: 700 });
  await tells(viewer, { quality: 'low', rendition: 'sub', switches: 1, width: 320 });
  await viewer.advances('cam-1', 15);
  await viewer.page.setViewportSize({ width: 1280, height: 800 });
  await tells(viewer, { quality: 'auto', rendition: 'main', switches: 2, width: 640 });
  await viewer.advances('cam-1', 15);

  const seen = await watch.end();
  assert.ok(seen.stall <= KEYFRAME_INTERVAL, `no picture for ${seen.stall} ms`);
  assert.ok(seen.darkest > 30, `a picture was black: ${seen.darkest}`);
  assert.deepEqual(seen.widths, [640, 320, 640]);
  await viewer.hears('cam-1', 440);
  const place = viewer.page.locator('[data-camera="cam-1"] [data-figure="stream"]');
  assert.equal(await place.textContent(), 'main · 2×');
  assert.deepEqual(viewer.errors, []);
});

scenario('a wall of small tiles begins with the sub streams', async (world) => {
  const camera = await world.camera();
  const ids = ['cam-1', 'cam-2', 'cam-3', 'cam-4', 'cam-5'];
  const urls = { url: camera.url('/h264'), sub_url: camera.url('/small') };
  const manifold = await world.manifold({ cameras: ids.map((id) => ({ id, ...urls })) });

  const viewer = await world.open(`${manifold.url}/?open=${ids.join(',')}`);

  for (const id of ids) {
    await viewer.plays(id);
    await tells(viewer, { quality: 'low', rendition: 'sub', switches: 0, width: 320 }, id);
    const [main, sub] = (await manifold.camera(id)).renditions;
    assert.deepEqual([main.viewer_count, sub.viewer_count, sub.width], [0, 1, 320]);
    assert.equal((await manifold.camera(id)).pulls_started, 1, 'the main stream was never pulled');
  }
});

scenario('a main stream that browsers cannot play gives way to the sub stream', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264hi'), sub_url: camera.url('/small') }],
  });

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await shows(viewer, 320, 'cam-1');
  await viewer.plays('cam-1');
  const shown = await manifold.camera('cam-1');
  assert.equal(shown.state, 'b_frames', 'whoever looks after the camera is told');
  assert.match(shown.reason, /turn them off/);
  assert.deepEqual(shown.renditions.map(({ state, viewer_count: n }) => [state, n]), [['b_frames', 0], ['live', 1]]);

  const second = await world.open(`${manifold.url}/?open=cam-1`);
  await second.plays('cam-1');
  assert.equal((await manifold.stats()).total.current, 2);
});

scenario('a codec that the browser does not take gives way to the sub stream, or is refused with a sentence', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: camera.url('/h265'), sub_url: camera.url('/small') },
      { id: 'cam-2', url: camera.url('/h265') },
    ],
  });

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  await shows(viewer, 320, 'cam-1');
  await until('the page tells it', async () => (await viewer.tile('cam-1')).rendition === 'sub');
  assert.equal((await manifold.camera('cam-1')).renditions[1].viewer_count, 1);

  const other = await world.open(`${manifold.url}/?open=cam-2`);
  const sentence = /the camera sends H265, which this viewer does not take; set the camera to H\.264/i;
  await until('the page says what would help', async () => sentence.test((await other.tile('cam-2')).reason), {
    show: () => other.tile('cam-2'),
    within: 20_000,
  });
  const { json: reservation } = await manifold.reserve('cam-2', 'tester');
  const offer = await other.page.evaluate(async () => {
    const peer = new RTCPeerConnection();
    peer.addTransceiver('video', { direction: 'recvonly' });
    await peer.setLocalDescription();
    return peer.localDescription.sdp;
  });
  await manifold.cameraIs('cam-2', 'live');
  const refused = await manifold.whep('cam-2', reservation.token, offer);
  assert.equal(refused.status, 406, refused.text);
  assert.match(refused.json.detail, sentence);
});

/** Waits until the page tells this of a tile. */
async function tells(viewer, wanted, camera = 'cam-1') {
  let tile;
  const is = () => Object.entries(wanted).every(([name, value]) => tile?.[name] === value);
  await until(
    `the page tells ${JSON.stringify(wanted)}`,
    async () => {
      tile = await viewer.tile(camera);
      return is();
    },
    { show: () => tile },
  );
}

/** A heartbeat; its answer, which must be 200. */
async function beat(manifold, { reservation_id: id }, body) {
  const answer = await manifold.call('POST', `/api/v1/stream/heartbeat/${id}`, { body });
  assert.equal(answer.status, 200, answer.text);
  return answer;
}

function shows(viewer, width, camera = 'tile') {
  return until(`the picture is ${width} wide`, async () => (await viewer.strip(camera))?.width === width);
}

/**
 * Looks at every picture that comes out of the decoder, whether or not a busy page gets to show it: how much later
 * than the one before it the camera took it at most, how dark the darkest is, and which widths they had in order.
 */
async function startWatching(viewer, camera = 'tile') {
  await viewer.page.evaluate(watchPictures, `[data-camera="${camera}"] video`);
  return { end: () => viewer.page.evaluate(() => window.seenPictures) };
}

/** In the page. */
function watchPictures(selector) {
  const [track] = document.querySelector(selector).srcObject.getVideoTracks();
  const options = { willReadFrequently: true };
  const seen = (window.seenPictures = { stall: 0, darkest: 255, widths: [], pictures: 0 });
  let last;
  const look = (picture) => {
    const { displayWidth: width } = picture;
    const top = new OffscreenCanvas(width, Math.ceil(width / 24)).getContext('2d', options);
    const small = new OffscreenCanvas(64, 36).getContext('2d', options);
    top.drawImage(picture, 0, 0);
    small.drawImage(picture, 0, 0, 64, 36);
    const strip = top.getImageData(0, 0, width, top.canvas.height).data;
    const read = window.decodeStrip(width, (x, y) => strip[(y * width + x) * 4 + 1]);
    if (read && last !== undefined) seen.stall = Math.max(seen.stall, read.capturedMs - last);
    last = read?.capturedMs ?? last;
    seen.pictures++;
    if (seen.widths.at(-1) !== width) seen.widths.push(width);
    const { data } = small.getImageData(0, 8, 64, 28);
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += data[at];
    seen.darkest = Math.min(seen.darkest, (4 * sum) / data.length);
  };
  const write = (picture) => {
    look(picture);
    picture.close();
  };
  // 20 s of pictures wait where the page is behind.
  new MediaStreamTrackProcessor({ track, maxBufferSize: 300 }).readable.pipeTo(new WritableStream({ write }));
}
