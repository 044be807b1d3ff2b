// Still pictures: the last keyframe of a camera as a JPEG, made when it is asked for.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';

import { stripsOf } from '../harness/players.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const path = (camera, query = '') => `/api/v1/cameras/${camera}/frame.jpeg${query}`;

/** The answer with its bytes. */
async function still(manifold, camera, { query, headers } = {}) {
  const response = await fetch(manifold.url + path(camera, query), { headers });
  const bytes = Buffer.from(await response.arrayBuffer());
  return { status: response.status, headers: response.headers, bytes };
}

scenario('an idle camera is started for a picture, takes no quota, and is let go', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    sources: [{ id: 'TEST', limit: 0 }],
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });
  const asked = Date.now();
  const { status, headers, bytes } = await still(manifold, 'cam-1');
  assert.equal(status, 200, bytes.toString());
  assert.equal(headers.get('content-type'), 'image/jpeg');
  const strip = await stripOf(world, bytes, 640, 360);
  assert.ok(strip.capturedMs > asked - 5_000 && strip.capturedMs <= Date.now(), 'the picture is new');
  const modified = Date.parse(headers.get('last-modified'));
  assert.ok(Math.abs(modified - strip.capturedMs) < 3_000, headers.get('last-modified'));
  assert.equal((await manifold.stats()).active_streams, 0);
  await manifold.cameraIs('cam-1', 'idle');
  await until('the camera is left alone', async () => (await camera.connections()) === 0);
});

scenario('while the keyframe is the same, so are the bytes', async (world) => {
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: 'test://clock?width=960&height=540&fps=15&gop=600', on_demand: false }],
  });
  await manifold.cameraIs('cam-1', 'live');
  const answers = await Promise.all(Array.from({ length: 20 }, () => still(manifold, 'cam-1')));
  assert.ok(answers.every(({ bytes }) => bytes.equals(answers[0].bytes)));
  await made(manifold, 1);
  const tag = answers[0].headers.get('etag');
  const same = await still(manifold, 'cam-1', { headers: { 'if-none-match': tag } });
  assert.deepEqual([same.status, same.bytes.length], [304, 0]);

  const small = await still(manifold, 'cam-1', { query: '?width=480' });
  const strip = await stripOf(world, small.bytes, 480, 270);
  assert.equal(strip.frame, (await stripOf(world, answers[0].bytes, 960, 540)).frame);
  assert.notEqual(small.headers.get('etag'), tag);
  await made(manifold, 2);
});

scenario('a camera without keyframes keeps nobody from pictures of the others', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [
      { id: 'mute', url: camera.url('/nokeyframe') },
      { id: 'good', url: camera.url('/h264') },
    ],
  });
  let over = 0;
  // More than may wait for pictures at once.
  const inVain = Array.from({ length: 40 }, async () => {
    const answer = await still(manifold, 'mute');
    over += 1;
    return answer;
  });
  assert.equal((await still(manifold, 'good')).status, 200);
  assert.equal(over, 0, 'they still wait');
  const answers = await Promise.all(inVain);
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([503]));
  assert.match(answers[0].bytes.toString(), /no keyframe/);
});

scenario('what cannot be shown is said in a sentence', async (world) => {
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: 'test://' },
      { id: 'cam-dead', url: 'rtsp://127.0.0.1:1/nothing' },
    ],
  });
  for (const [camera, query, status, sentence] of [
    ['nope', '', 404, /there is no camera nope/],
    ['cam-dead', '', 503, /the camera at 127.0.0.1:1 cannot be reached/],
    ['cam-1', '?width=0', 400, /width must be from 1 to 1920/],
    ['cam-1', '?width=wide', 400, /the query cannot be read/],
  ]) {
    const answer = await still(manifold, camera, { query });
    assert.equal(answer.status, status);
    assert.match(JSON.parse(answer.bytes).detail, sentence);
  }
});

scenario('with keys, a picture is for who may call the API and for viewers of the camera', async (world) => {
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    cameras: [{ id: 'cam-1', url: 'test://' }],
  });
  const viewer = 'viewer_67e55044-10b1-426f-9247-bb680e5fe0c8';
  for (const [text, status] of [
    [undefined, 401],
    [token('camera_cam-2', viewer), 403],
    [token('camera_cam-1', viewer), 200],
    [token('', 'dashboard', { video: { roomJoin: false, roomAdmin: true } }), 200],
  ]) {
    const headers = text ? { authorization: `Bearer ${text}` } : {};
    assert.equal((await still(manifold, 'cam-1', { headers })).status, status);
  }
});

async function stripOf(world, jpeg, width, height) {
  const file = world.file('still.jpeg');
  await writeFile(file, jpeg);
  const [strip] = await stripsOf(file, width, height);
  assert.ok(strip, 'the strip can be read in the picture');
  return strip;
}

async function made(manifold, number) {
  assert.match(await manifold.metrics(), new RegExp(`manifold_stills_total\\{result="made"\\} ${number}\n`));
}
