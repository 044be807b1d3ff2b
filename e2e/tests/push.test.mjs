// `manifold push`: a test card and an RTSP camera, published to a server that shares no code with us.

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

function start(world, server, args) {
  const whip = ['push', '--whip', `${server.url}/whip`, ...args];
  const child = new Child('manifold push', part('manifold'), whip, {
    env: { MANIFOLD_TOKEN: server.token },
    log: world.file('push.log'),
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
