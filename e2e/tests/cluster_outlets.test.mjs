// An edge gives out what its origin pulls by every way: still pictures, and RTSP for recorders and players.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';

import { cluster, originOf } from '../harness/cluster.mjs';
import { gstreamerPlays, probe, recorder, stripsOf } from '../harness/players.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/** Two nodes of which the first is the camera's origin: a page there shows it. */
async function edge(world, path) {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url(path), close_after: '1s' }]);
  const [first, second] = nodes;
  const viewer = await world.open(`${first.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  return { camera, first, second, viewer };
}

scenario('a still picture from an edge is what the camera shows, and takes no second pull', async (world) => {
  const { camera, first, second } = await edge(world, '/h264');

  const asked = Date.now();
  const response = await fetch(`${second.url}/api/v1/cameras/cam-1/frame.jpeg`);
  const bytes = Buffer.from(await response.arrayBuffer());

  assert.equal(response.status, 200, bytes.toString());
  assert.equal(response.headers.get('content-type'), 'image/jpeg');
  const file = world.file('still.jpeg');
  await writeFile(file, bytes);
  const [strip] = await stripsOf(file, 640, 360);
  assert.ok(strip.capturedMs > asked - 5_000 && strip.capturedMs <= Date.now(), 'the picture is new');
  const modified = Date.parse(response.headers.get('last-modified'));
  assert.ok(Math.abs(modified - strip.capturedMs) < 3_000, response.headers.get('last-modified'));
  assert.equal(camera.connectionsEver(), 1, 'the edge took it from the origin');
  assert.equal((await second.stats()).active_streams, 1, 'a still picture takes no quota');
  const given = async () => /^manifold_feeds_given (\d+)$/m.exec(await first.metrics())[1];
  await until('the edge lets the origin go', async () => (await given()) === '0');
});

scenario('FFmpeg and GStreamer read a camera by RTSP at an edge, and the camera is pulled once', async (world) => {
  const { camera, second, viewer } = await edge(world, '/h264pcma');
  const url = `${second.rtsp}/cam-1`;
  const file = world.file('recorded.mkv');
  const ffmpeg = recorder(world, 'recorder', url, file, { seconds: 5 });
  await until('page and recorder are viewers of one camera', async () => (await second.camera('cam-1')).viewer_count === 2);
  assert.equal(await gstreamerPlays(world, url), 0);
  assert.equal(camera.connectionsEver(), 1);
  await viewer.advances('cam-1');

  assert.equal(await ffmpeg.ended, 0, ffmpeg.tail());
  await until('the lease ended with the connection', async () => (await second.camera('cam-1')).viewer_count === 1);
  assert.deepEqual((await probe(file)).map((stream) => stream.codec_name), ['h264', 'pcm_alaw']);
  const strips = await stripsOf(file, 640, 360);
  assert.ok(strips.length > 20, `${strips.length} pictures`);
  strips.forEach((strip, index) => assert.ok(index === 0 || strip.frame > strips[index - 1].frame, 'in order'));
});

scenario('the origin dies while an edge is recorded: the recording goes on', async (world) => {
  const { camera, first, second } = await edge(world, '/h264');
  const file = world.file('recorded.ts');
  const ffmpeg = recorder(world, 'recorder', `${second.rtsp}/cam-1`, file);
  const recorded = () => Number([...ffmpeg.output.matchAll(/frame= *(\d+)/g)].at(-1)?.[1] ?? 0);
  await until('something is recorded', () => recorded() > 0);

  await first.child.kill();
  await until('the edge pulls the camera', () => camera.connectionsEver() === 2, { within: 15_000 });
  const before = recorded();
  await until('the recording goes on', () => recorded() > before + 30, { within: 30_000 });

  assert.ok(ffmpeg.alive, ffmpeg.tail());
  ffmpeg.signal('SIGINT');
  await ffmpeg.ended;
  const strips = await stripsOf(file, 640, 360);
  assert.ok(strips.length > 30, `${strips.length} pictures`);
});
