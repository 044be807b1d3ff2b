// `manifold push`: a test card and an RTSP camera, published to a server that shares no code with us, and
// to our own, where a browser plays them.

import assert from 'node:assert/strict';

import { ForeignServer } from '../harness/foreign.mjs';
import { part } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

scenario('a test card is published with its sound, and taken away at the end', async (world) => {
  const server = await ForeignServer.start(world);
  const push = start(world, server, ['--test', 'test://bars?width=320&height=180&fps=15&gop=30']);

  await seen(server, ({ video_frames, audio_frames }) => video_frames >= 30 && audio_frames >= 50);
  assert.deepEqual((await server.seen()).size, [320, 180]);
  await push.says(/published \d+ s/);
  push.signal('SIGINT');
  await until('it has ended', () => !push.alive, { within: 10_000 });
  assert.equal(push.code, 0, push.tail());
  const { ended, sessions } = await server.seen();
  assert.deepEqual([ended, sessions], [1, 0], 'the session was ended by DELETE');
});

scenario('an RTSP camera is published', async (world) => {
  const camera = await world.camera();
  const server = await ForeignServer.start(world);
  start(world, server, ['--rtsp', camera.url('/h264aac')]);

  await seen(server, ({ video_frames, audio_frames }) => video_frames >= 30 && audio_frames >= 30);
  assert.deepEqual((await server.seen()).size, [640, 360]);
});

scenario('a server that is not ready is tried again, one that knows no such token is not', async (world) => {
  const server = await ForeignServer.start(world, { refusals: 1 });
  const push = start(world, server, ['--test']);
  await push.says(/503 Service Unavailable: not ready yet; trying again in 1 s/);
  await seen(server, ({ video_frames }) => video_frames >= 15);

  const stranger = start(world, { ...server, token: 'wrong' }, ['--test']);
  await until('it has ended', () => !stranger.alive, { within: 10_000 });
  assert.equal(stranger.code, 1);
  assert.match(stranger.output, /refused with 401 Unauthorized: this is not the token/);
  assert.doesNotMatch(stranger.output, /wrong/, 'the token is not shown');
});

const KEY = 'canary-stream-key-of-push';

scenario('a browser plays the test card that is pushed to our own server', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: `whip://${KEY}` }] });
  const push = start(world, ours(manifold, 'cam-1', KEY), ['--test', 'test://clock?width=320&height=180&fps=15&gop=30']);
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');

  const { last } = await viewer.advances('cam-1', 15);
  assert.deepEqual([last.width, last.height], [320, 180]);
  await viewer.hears('cam-1', 440);
  const inbound = await viewer.inbound('cam-1');
  assert.deepEqual([inbound.video.codec, inbound.audio.codec], ['video/H264', 'audio/opus']);

  push.signal('SIGINT');
  await manifold.cameraIs('cam-1', 'no_publisher');
  assert.ok(![push.output, manifold.logs].some((text) => text.includes(KEY)), 'nobody shows the key');
});

scenario('a browser plays the RTSP camera that is pushed to our own server', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: `whip://${KEY}` }] });
  start(world, ours(manifold, 'cam-1', KEY), ['--rtsp', camera.url('/h264aac')]);
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');

  const { last } = await viewer.advances('cam-1', 15);
  assert.deepEqual([last.width, last.height], [640, 360]);
  await viewer.hears('cam-1', 440);
});

scenario('a small picture is published beside the large one, and each goes to those who asked for it', async (world) => {
  const small = `${KEY}-small`;
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: `whip://${KEY}`, sub_url: `whip://${small}` }] });
  start(world, ours(manifold, 'cam-1', KEY), ['--test', 'test://clock?width=640&height=360&fps=15&gop=30']);
  start(world, ours(manifold, 'cam-1', small), ['--test', 'test://bars?width=320&height=180&fps=15&gop=30']);
  const viewer = await world.open(manifold.url);

  for (const [quality, rendition, width] of [['high', 'main', 640], ['low', 'sub', 320]]) {
    const { status, json, text } = await manifold.reserve('cam-1', quality, quality);
    assert.equal(status, 200, text);
    assert.equal(json.rendition, rendition);
    await viewer.watch(quality, json);
    const { last } = await viewer.advances(quality, 15);
    assert.equal(last.width, width);
  }
});

/** Our own server, as `start` wants it: the camera's id in the path, the stream key as the token. */
function ours(manifold, camera, key) {
  return { url: manifold.url, camera, token: key };
}

function start(world, server, args) {
  const address = [server.url, 'whip', ...(server.camera === undefined ? [] : [server.camera])].join('/');
  const whip = ['push', '--whip', address, ...args];
  const child = new Child('manifold push', part('manifold'), whip, {
    env: { MANIFOLD_TOKEN: server.token },
    log: world.file(`push-${world.children.length}.log`),
  });
  world.own(child);
  return child;
}

/** Waits until what the server has seen is enough. */
async function seen(server, enough) {
  let last;
  await until('enough has arrived', async () => enough((last = await server.seen())), {
    within: 30_000,
    show: () => JSON.stringify(last),
  });
}
