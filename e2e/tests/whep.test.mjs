// WHEP as other pages and players use it: from another site, twice on one reservation, and smoothly.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { chromium } from '../harness/sdp.mjs';
import { scenario } from '../harness/world.mjs';
import { pause, until } from '../harness/wait.mjs';

scenario('a page of another site watches with a token', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://' }] });
  const { json } = await manifold.reserve('cam-1');
  const site = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<p>another site'));
  world.after(() => site.close());
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  const viewer = await world.open(`http://127.0.0.1:${site.address().port}/`);

  await viewer.watch('cam-1', json);

  await viewer.advances('cam-1');
  const preflight = await manifold.call('OPTIONS', '/whep/cam-1', {
    headers: {
      origin: 'https://player.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type',
    },
  });
  assert.ok(preflight.status === 200 || preflight.status === 204);
  assert.ok(['*', 'https://player.example'].includes(preflight.headers.get('access-control-allow-origin')));
  assert.match(preflight.headers.get('access-control-allow-headers'), /authorization/i);
  const api = await manifold.call('GET', '/api/v1/cameras', { headers: { origin: 'https://player.example' } });
  assert.equal(api.headers.get('access-control-allow-origin'), null, 'the API stays closed to it');
});

scenario('a second session on one reservation takes the place of the first', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://' }] });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);
  await viewer.watch('first', json);
  await viewer.advances('first');

  await viewer.watch('second', json);

  await viewer.advances('second');
  const before = await viewer.strip('first');
  await viewer.advances('second', 20);
  assert.deepEqual((await viewer.strip('first')).frame, before.frame, 'the first one gets nothing more');
  const shown = await manifold.camera('cam-1');
  assert.deepEqual([shown.viewer_count, shown.pullers, shown.pulls_started], [1, 1, 1]);
});

scenario('ICE servers of the config are told in Link headers', async (world) => {
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: 'test://' }],
    'media.ice_servers': [{ urls: ['turn:turn.example:3478'], username: 'u', credential: 'p' }],
  });
  const { json } = await manifold.reserve('cam-1');

  const answer = await manifold.whep('cam-1', json.token, chromium);

  assert.equal(answer.status, 201, answer.text);
  assert.match(answer.headers.get('link'), /<turn:turn\.example:3478>; rel="ice-server"; username="u"; credential="p"/);
});

scenario('the picture runs smoothly: nothing lost, nothing frozen, little buffered', async (world) => {
  const camera = await world.camera({ gop: 30 });
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264aac') }] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const start = await viewer.inbound('cam-1');

  await pause(10_000);

  const { video, audio } = await viewer.inbound('cam-1');
  const risen = (key) => video[key] - start.video[key];
  assert.equal(risen('packetsLost'), 0);
  assert.equal(risen('freezeCount'), 0);
  assert.equal(risen('pliCount'), 0, 'the browser asks for no keyframe');
  assert.ok(risen('framesDecoded') >= 140, `${risen('framesDecoded')} frames in 10 s at 15 a second`);
  const buffered = (risen('jitterBufferDelay') / risen('jitterBufferEmittedCount')) * 1_000;
  assert.ok(buffered < 200, `frames wait ${buffered} ms`);
  const concealed = audio.concealedSamples - start.audio.concealedSamples;
  const samples = audio.totalSamplesReceived - start.audio.totalSamplesReceived;
  assert.ok(concealed < samples * 0.02, `${concealed} of ${samples} samples of sound were made up`);
  await until('our sender reports arrive', async () => {
    const { remote } = await viewer.inbound('cam-1');
    return remote.video?.reportsSent > 1 && remote.audio?.reportsSent > 1;
  });
});
