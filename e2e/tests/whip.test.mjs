// Encoders publish a camera: who may, who watches, and what happens when they go.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { chromium } from '../harness/sdp.mjs';
import { Publisher, beyondLoopback } from '../harness/publisher.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const KEY = 'canary-stream-key-7f3a';
const CAMERA = { id: 'cam-1', url: `whip://${KEY}`, close_after: '1s' };
const SDP = { 'content-type': 'application/sdp' };

scenario('GStreamer publishes with an RSA certificate: Chromium sees and hears it', async (world) => {
  const manifold = await world.manifold({ media: beyondLoopback, cameras: [CAMERA] });
  const publisher = await new Publisher(world, 'gstreamer', `${manifold.url}/whip/${KEY}`).start();
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');

  // Its keyframes are 20 s apart: this one was asked for.
  const { last } = await viewer.advances('cam-1');
  assert.deepEqual([last.width, last.height], [640, 360]);
  await viewer.hears('cam-1', 440);
  const camera = await manifold.cameraIs('cam-1', 'live');
  assert.deepEqual([camera.codec, camera.audio, camera.url], ['H264', 'opus', 'whip://***']);
  const { rooms: [room] } = await manifold.get('/rooms/camera_cam-1');
  assert.equal(room.num_participants, 2, 'the publisher and a viewer');

  await publisher.stop();

  assert.equal(publisher.said('deleted').status, 200);
  const gone = await manifold.cameraIs('cam-1', 'no_publisher');
  assert.equal(gone.status, 'OFFLINE');
  assert.match(gone.reason, /start the encoder/);
  const told = [manifold.logs, await manifold.metrics(), JSON.stringify(gone), JSON.stringify(room)];
  assert.ok(told.every((text) => !text.includes(KEY)), 'nothing that is told has the key');
});

scenario('a publisher that is killed and returns is seen again by those who stayed', async (world) => {
  const manifold = await world.manifold({ media: beyondLoopback, cameras: [CAMERA] });
  const publisher = new Publisher(world, 'gstreamer', `${manifold.url}/w/${KEY}`);
  await publisher.start();
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  await publisher.kill();

  const lost = await until('the camera is said to be down', async () => {
    const shown = await manifold.camera('cam-1');
    return ['lost', 'no_publisher'].includes(shown.state) && shown;
  });
  assert.equal(lost.status, 'OFFLINE');
  assert.equal((await manifold.stats()).active_streams, 1, 'the viewer keeps its lease');

  await publisher.start({ width: 960, height: 540 });

  await until(
    'the new resolution plays',
    async () => (await viewer.tile('cam-1')).width === 960,
    { within: 20_000, show: () => viewer.tile('cam-1') },
  );
  await viewer.advances('cam-1');
  await viewer.hears('cam-1', 440);
  const peers = await viewer.page.evaluate(() => window.testPeers.length);
  assert.equal(peers, 1, 'over the connection it had');
});

scenario('a camera that nobody publishes to says so, and is live as soon as somebody does', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA] });
  assert.equal((await manifold.camera('cam-1')).state, 'no_publisher', 'before anybody asks');
  const { json } = await manifold.reserve('cam-1');
  const waiting = await manifold.cameraIs('cam-1', 'no_publisher');
  assert.ok(waiting.retry_in_s > 10, 'it is not tried for long');
  const viewer = await world.open(manifold.url);
  await viewer.watch('cam-1', json);

  const url = `${manifold.url}/whip/cam-1`;
  await new Publisher(world, 'aiortc', url).start({ bearer: KEY });

  await manifold.cameraIs('cam-1', 'live', 5_000);
  await until(
    'its picture is decoded',
    () => viewer.page.evaluate(() => document.querySelector('[data-camera="cam-1"] video').videoWidth === 320),
  );
});

scenario('aiortc publishes VP8, which Chromium plays', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA] });
  await new Publisher(world, 'aiortc', `${manifold.url}/whip/${KEY}`).start({ codec: 'VP8' });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');

  assert.equal((await manifold.cameraIs('cam-1', 'live')).codec, 'VP8');
});

scenario('a key has one publisher at a time', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA] });
  const url = `${manifold.url}/whip/${KEY}`;
  const first = await new Publisher(world, 'aiortc', url).start();

  const second = new Publisher(world, 'aiortc', url).launch();

  await second.child.says(/WHIP POST: 409/).catch(() => {});
  await second.child.ended;
  assert.match(second.child.output, /WHIP POST: 409 .*has a publisher already/);
  assert.ok(!second.child.output.includes(KEY));
  assert.equal((await manifold.metrics()).match(/manifold_publishers_connected (\d)/)[1], '1');

  await first.stop();

  assert.equal(first.said('deleted').status, 200);
  await new Publisher(world, 'aiortc', url).start();
});

scenario('what is wrong with a publisher is told in one sentence', async (world) => {
  const manifold = await world.manifold({
    cameras: [CAMERA, { id: 'cam-2', url: 'test://' }, { id: 'cam-3', url: 'whip://' }],
  });
  const offer = chromium.replaceAll('a=recvonly', 'a=sendonly');
  const post = (path, body, headers = {}) => manifold.call('POST', path, { body, headers: { ...SDP, ...headers } });
  const refused = async (status, words, ...call) => {
    const answer = await post(...call);
    assert.equal(answer.status, status, answer.text);
    assert.match(answer.headers.get('content-type'), /^application\/problem\+json/);
    assert.match(answer.json.detail, words);
    assert.ok(!answer.text.includes(KEY));
  };
  const bearer = (token) => ({ authorization: `Bearer ${token}` });

  await refused(404, /no camera takes this stream key/, '/whip/another-stream-key', offer);
  await refused(404, /no camera takes this stream key/, '/w/cam-3', offer);
  await refused(401, /bearer token is not/, '/whip/cam-1', offer, bearer('another-stream-key'));
  await refused(401, /bearer token is not/, '/whip/cam-2', offer, bearer(KEY));
  await refused(401, /Authorization/, '/whip/cam-1', offer, { authorization: 'Basic x' });
  await refused(415, /application\/sdp/, `/whip/${KEY}`, offer, { 'content-type': 'text/plain' });
  await refused(400, /cannot be read/, `/whip/${KEY}`, 'v=0\r\nnonsense');
  await refused(400, /no video section that sends/, `/whip/${KEY}`, chromium);
  const audioOnly = offer.slice(0, offer.indexOf('m=video'));
  await refused(400, /no video section that sends/, `/whip/${KEY}`, audioOnly);
  const strange = offer.replace(/a=rtpmap:(\d+) (H26[45]|VP[89]|AV1)\//gi, 'a=rtpmap:$1 X-UNKNOWN/');
  await refused(406, /H\.264 best/, `/whip/${KEY}`, strange);
  const got = await manifold.call('GET', `/whip/${KEY}`);
  assert.equal(got.status, 405);
  assert.ok(!got.text.includes(KEY) && !manifold.logs.includes(KEY));
});

scenario('a session is trickled to, tagged and ended by its own address', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA] });
  const offer = chromium.replaceAll('a=recvonly', 'a=sendonly');
  const created = await manifold.call('POST', `/whip/${KEY}`, { body: offer, headers: SDP });
  assert.equal(created.status, 201, created.text);
  assert.match(created.text, /a=recvonly/);
  assert.doesNotMatch(created.text, /a=send/);
  const [location, etag] = [created.headers.get('location'), created.headers.get('etag')];
  assert.match(location, /^\/whip\/cam-1\/[0-9a-f-]{36}$/);
  const patch = (headers, path = location) =>
    manifold.call('PATCH', path, { body: 'a=ice-ufrag:x\r\n', headers: { ...headers } });
  const fragment = { 'content-type': 'application/trickle-ice-sdpfrag' };

  assert.equal((await patch({ ...fragment, 'if-match': etag })).status, 204);
  assert.equal((await patch(fragment)).status, 204);
  assert.equal((await patch({ ...fragment, 'if-match': '"other"' })).status, 412);
  const anew = 'a=mid:0\r\na=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n';
  const restart = (body) => manifold.call('PATCH', location, { body, headers: { ...fragment, 'if-match': '*' } });
  const restarted = await restart(anew);
  assert.equal(restarted.status, 200, restarted.text);
  assert.match(restarted.text, /a=mid:0\r\na=ice-ufrag:\w+\r\na=ice-pwd:\w+\r\na=candidate:/);
  assert.notEqual(restarted.headers.get('etag'), etag);
  assert.equal((await restart(anew)).status, 204, 'the same credentials again only tell candidates');
  assert.equal((await restart('a=ice-ufrag:x\r\n')).status, 400);
  assert.equal((await patch({ ...fragment, 'if-match': etag })).status, 412, 'that was before the restart');
  assert.equal((await patch({ 'content-type': 'text/plain' })).status, 415);
  assert.equal((await patch(fragment, '/whip/cam-1/unknown')).status, 404);
  assert.equal((await manifold.call('DELETE', location)).status, 200);
  assert.equal((await manifold.call('DELETE', location)).status, 404);
  assert.equal((await patch(fragment)).status, 404);
});

scenario('pages of other sites may publish, and are told how', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA] });
  const asked = {
    origin: 'https://studio.example',
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,content-type',
  };
  const preflight = await manifold.call('OPTIONS', `/whip/${KEY}`, { headers: asked });
  assert.equal(preflight.status, 200);
  assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
  assert.match(preflight.headers.get('access-control-allow-headers'), /authorization/i);
  assert.equal(preflight.headers.get('accept-post'), 'application/sdp');

  const site = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<p>a studio'));
  world.after(() => site.close());
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  const page = await world.open(`http://127.0.0.1:${site.address().port}/`);
  await page.page.evaluate(publishFromCanvas, `${manifold.url}/whip/${KEY}`);
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const camera = await manifold.cameraIs('cam-1', 'live');
  assert.equal(camera.codec, 'H264', 'of all that Chromium offers, what every browser plays');
});

scenario('who has the key is told the ICE servers before there is an offer', async (world) => {
  const manifold = await world.manifold({
    cameras: [CAMERA],
    'media.ice_servers': [{ urls: ['turn:turn.example:3478'], username: 'u', credential: 'p' }],
  });
  const told = async (path, headers = {}) => (await manifold.call('OPTIONS', path, { headers })).headers;
  const link = '<turn:turn.example:3478>; rel="ice-server"; username="u"; credential="p"; credential-type="password"';
  const bearer = (key) => ({ authorization: `Bearer ${key}` });

  for (const headers of [await told(`/whip/${KEY}`), await told(`/w/${KEY}`), await told('/whip/cam-1', bearer(KEY))]) {
    assert.equal(headers.get('link'), link);
    assert.match(headers.get('access-control-expose-headers'), /link/i);
  }
  for (const headers of [await told('/whip/cam-1'), await told('/whip/x'), await told('/whip/cam-1', bearer('wrong'))]) {
    assert.equal(headers.get('link'), null);
    assert.equal(headers.get('accept-post'), 'application/sdp');
  }
});

scenario('a key made by the API opens the camera, and the one before does not any more', async (world) => {
  const manifold = await world.manifold({ cameras: [CAMERA, { id: 'cam-2', url: 'test://' }] });
  const old = await new Publisher(world, 'aiortc', `${manifold.url}/whip/${KEY}`).start();

  const made = await manifold.call('POST', '/api/v1/cameras/cam-1/stream-key');

  assert.equal(made.status, 201, made.text);
  assert.match(made.json.stream_key, /^[0-9a-f]{32}$/);
  assert.equal(made.json.whip_url, `${manifold.url}/whip/${made.json.stream_key}`);
  await until('the one with the old key is ended', async () =>
    (await manifold.metrics()).includes('manifold_publishers_connected 0'));
  await new Publisher(world, 'aiortc', made.json.whip_url).start();
  await old.kill();
  const again = new Publisher(world, 'aiortc', `${manifold.url}/whip/${KEY}`).launch();
  await again.child.ended;
  assert.match(again.child.output, /WHIP POST: 404/);
  assert.equal((await manifold.call('POST', '/api/v1/cameras/cam-2/stream-key')).status, 409);
  assert.equal((await manifold.call('POST', '/api/v1/cameras/cam-9/stream-key')).status, 404);
  assert.ok(!manifold.logs.includes(made.json.stream_key), 'the key is answered once and logged never');
});

/** Runs in a page: publishes a canvas. */
async function publishFromCanvas(url) {
  const canvas = document.createElement('canvas');
  canvas.width = 320;
  canvas.height = 240;
  const context = canvas.getContext('2d');
  let number = 0;
  setInterval(() => {
    context.fillStyle = `hsl(${number++ % 360} 80% 50%)`;
    context.fillRect(0, 0, 320, 240);
  }, 66);
  const peer = new RTCPeerConnection();
  window.publishingPeer = peer;
  canvas.captureStream(15).getTracks().forEach((track) => peer.addTransceiver(track, { direction: 'sendonly' }));
  await peer.setLocalDescription();
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp' },
    body: peer.localDescription.sdp,
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
}
