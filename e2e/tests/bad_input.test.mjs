// Bad input of every kind gets the right status and one clear sentence; nothing is lost or leaked by it.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { connect } from 'node:net';

import { chromium, firefox, withOtherCodecs, withoutVideo } from '../harness/sdp.mjs';
import { KEY, token } from '../harness/token.mjs';
import { scenario } from '../harness/world.mjs';

const CANARY = 'c4nary-Pa55word';
const SCRIPT = '<script>window.hacked = true</script>';

const config = {
  auth: { mode: 'open' },
  'auth.keys': { [KEY.id]: KEY.secret },
  sources: [
    { id: 'TEST', name: 'Test agency', name_ar: 'جهة الاختبار', limit: 50 },
    { id: 'SMALL', name: 'Small agency', name_ar: 'جهة صغيرة', limit: 1 },
  ],
  cameras: [
    { id: 'cam-1', url: 'test://' },
    { id: 'cam-2', url: `rtsp://admin:${CANARY}@127.0.0.1:1/stream` },
    { id: 'cam-small', source: 'SMALL', url: 'test://' },
    { id: 'cam-script', name: SCRIPT, url: 'test://' },
  ],
};

/** A server and a good reservation of cam-1. */
async function arrange(world) {
  const manifold = await world.manifold(config);
  const { json } = await manifold.reserve('cam-1');
  return { manifold, reservation: json.reservation_id, good: json.token };
}

scenario('offers that cannot be answered are refused with a reason', async (world) => {
  const { manifold, good } = await arrange(world);
  const cut = chromium.slice(0, 700);
  const refusals = [
    ['text that is no SDP', 'hello', 400, /offer/],
    ['an empty offer', '', 400, /SDP|offer|body/i],
    ['an offer cut short', cut, 400, /SDP|offer/i],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x00, 0x80]), 400, /UTF-8|SDP|text/i],
    ['an offer without video', withoutVideo(chromium), 400, /video/],
    ['no codec that is sent here', withOtherCodecs(chromium), 406, /H\.?264.*packetization-mode.*theora/i],
  ];
  for (const [what, sdp, status, sentence] of refusals) {
    const answer = await manifold.whep('cam-1', good, sdp);
    assertProblem(answer, status, sentence, what);
  }

  const type = await manifold.whep('cam-1', good, chromium, { type: 'text/plain' });
  assertProblem(type, 415, /application\/sdp/, 'a wrong content type');
  const large = await manifold.whep('cam-1', good, chromium + 'a=x\r\n'.repeat(60_000));
  assertProblem(large, 413, /256 ?KiB|too large|262144/i, 'a body over 256 KiB');

  const stats = await manifold.stats();
  assert.equal(stats.active_streams, 1, 'the reservation outlives refused offers');
  const answered = await manifold.whep('cam-1', good, chromium);
  assert.equal(answered.status, 201, `and opens with a good one: ${answered.text}`);
});

scenario('offers of Chromium and Firefox are answered with what they offer', async (world) => {
  const { manifold, good } = await arrange(world);
  for (const [name, sdp, codecs] of [
    ['Chromium', chromium, ['H264', 'VP8', 'VP9', 'AV1']],
    ['Firefox', firefox, ['H264', 'VP9', 'AV1']],
  ]) {
    const answer = await manifold.whep('cam-1', good, sdp);
    assert.equal(answer.status, 201, `${name}: ${answer.text}`);
    assert.equal(answer.headers.get('content-type'), 'application/sdp');
    assert.match(answer.headers.get('location'), /^\/whep\/|^http/);
    assert.ok(answer.headers.get('etag'), `${name}: an ETag`);
    const listed = [...answer.text.matchAll(/^a=rtpmap:\d+ (\w+)\/90000/gm)].map(([, codec]) => codec);
    assert.deepEqual(new Set(listed.filter((codec) => codec !== 'rtx')), new Set(codecs), name);
    assert.match(answer.text, /packetization-mode=1/);
    assert.match(answer.text, /^a=setup:passive/m);
    assert.match(answer.text, /^a=ice-lite/m);
    assert.match(answer.text, /^a=sendonly/m);
    assert.match(answer.text, /^a=candidate:.* udp /im);
  }
});

scenario('tokens: missing, broken, forged, expired, for another room', async (world) => {
  const { manifold, reservation, good } = await arrange(world);
  const identity = `viewer_${reservation}`;
  const room = 'camera_cam-1';
  const past = Math.floor(Date.now() / 1000) - 3_600;
  const refusals = [
    ['no token', undefined, 401],
    ['no JWT', 'garbage', 401],
    ['a changed signature', `${good.slice(0, -6)}AAAAAA`, 401],
    ['alg none', token(room, identity, { alg: 'none' }), 401],
    ['a wrong secret', token(room, identity, { key: { id: KEY.id, secret: 'x'.repeat(40) } }), 401],
    ['an unknown key', token(room, identity, { key: { id: 'nobody', secret: KEY.secret } }), 401],
    ['expired', token(room, identity, { exp: past, nbf: past - 600 }), 401],
    ['another room', token('camera_cam-2', identity), 403],
    ['not allowed to subscribe', token(room, identity, { video: { canSubscribe: false } }), 403],
    ['not allowed to join', token(room, identity, { video: { roomJoin: false } }), 403],
  ];
  for (const [what, bad, status] of refusals) {
    const answer = await manifold.whep('cam-1', bad, chromium);
    assertProblem(answer, status, /./, what);
    if (bad) assert.ok(!answer.text.includes(bad), `${what}: the token is not repeated`);
  }
  const gone = await manifold.whep('cam-1', token(room, 'viewer_00000000-0000-4000-8000-000000000000'), chromium);
  assert.ok([403, 404, 409, 410].includes(gone.status), `a reservation that is not there: ${gone.status}`);
  assertProblem(gone, gone.status, /reserv/i, 'a reservation that is not there');
  assert.equal((await manifold.whep('cam-1', token(room, identity), chromium)).status, 201, 'a good one of our own');
});

scenario('unknown cameras, hostile ids, full quotas and broken JSON', async (world) => {
  const { manifold, good } = await arrange(world);

  const unknown = await manifold.reserve('cam-404');
  assert.equal(unknown.status, 404);
  assert.match(unknown.text, /cam-404/);
  assert.equal((await manifold.call('GET', '/api/v1/cameras/cam-404')).status, 404);
  for (const id of ['../../etc/passwd', '..%2f..%2fetc%2fpasswd', 'cam\u0000', SCRIPT, 'x'.repeat(5_000), '']) {
    const reserved = await manifold.reserve(id);
    assert.ok([400, 404, 422].includes(reserved.status), `reserve ${id.slice(0, 30)}: ${reserved.status}`);
    assert.ok(!reserved.text.includes('<script>') || isJson(reserved), 'markup only inside JSON');
    assert.ok(reserved.text.length < 1_000, 'a short sentence');
  }
  for (const path of ['/api/v1/cameras/../../etc/passwd', '/whep/..%2f..%2fetc', '/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/assets/..%2f..%2fCargo.toml']) {
    const { status, text } = await raw(manifold, path);
    assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
    assert.doesNotMatch(text, /root:|\[workspace\]/);
  }

  assert.equal((await manifold.reserve('cam-small')).status, 200);
  const full = await manifold.reserve('cam-small');
  assert.equal(full.status, 429);
  assert.equal(full.json.error.code, 'RATE_LIMIT_EXCEEDED');

  const post = (body, headers) => manifold.call('POST', '/api/v1/stream/reserve', { body, headers });
  for (const [what, body, headers, statuses] of [
    ['no JSON', '{"camera_id":', {}, [400]],
    ['a list', '[]', {}, [400, 422]],
    ['no camera', '{}', {}, [400, 422]],
    ['a number for a camera', '{"camera_id":7,"user_id":"x"}', {}, [400, 422]],
    ['an unknown quality', '{"camera_id":"cam-1","user_id":"x","quality":"best"}', {}, [400, 422]],
    ['a deep tree', '['.repeat(100_000), {}, [400, 413, 422]],
    ['a large body', JSON.stringify({ camera_id: 'cam-1', user_id: 'x'.repeat(300_000) }), {}, [413]],
    ['a form', 'camera_id=cam-1&user_id=x', { 'content-type': 'application/x-www-form-urlencoded' }, [415]],
  ]) {
    const { status, text } = await post(body, headers);
    assert.ok(statuses.includes(status), `${what}: ${status} ${text.slice(0, 200)}`);
    assert.ok(text.length > 0 && text.length < 1_000, `${what}: one sentence, not ${text.length} characters`);
  }
  assert.equal((await manifold.call('PUT', '/api/v1/stream/reserve')).status, 405);
  assert.equal((await manifold.call('GET', '/nothing/here')).status, 404);

  const foreign = await manifold.call('POST', '/api/v1/stream/reserve', {
    body: { camera_id: 'cam-1', user_id: 'x' },
    headers: { origin: 'http://evil.example' },
  });
  assert.equal(foreign.status, 403, 'another site may not reserve in the name of its visitor');

  assert.equal((await manifold.stats()).active_streams, 2, 'nothing was lost, nothing added');
  assert.equal((await manifold.whep('cam-1', good, chromium)).status, 201);
});

scenario('sessions: an unknown one, a wrong ETag, garbage to trickle, a second DELETE', async (world) => {
  const { manifold, good } = await arrange(world);
  const created = await manifold.whep('cam-1', good, chromium);
  const path = new URL(created.headers.get('location'), manifold.url).pathname;
  const etag = created.headers.get('etag');
  const patch = (to, tag, body, type = 'application/trickle-ice-sdpfrag') =>
    manifold.call('PATCH', to, {
      body,
      headers: { 'content-type': type, 'if-match': tag, authorization: `Bearer ${good}` },
    });
  const fragment = 'a=ice-ufrag:qtL2\r\na=ice-pwd:eTMPP4XZfWUQCJ1YMIMBiffQ\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=end-of-candidates\r\n';

  assert.equal((await patch(path, etag, fragment)).status, 204);
  assert.equal((await patch(path, '"other"', fragment)).status, 412);
  assert.equal((await patch(path, etag, fragment, 'text/plain')).status, 415);
  assert.ok((await patch(path, etag, 'garbage')).status < 500);
  assert.equal((await patch(`${path}x`, etag, fragment)).status, 404);

  const headers = { authorization: `Bearer ${good}` };
  assert.equal((await manifold.call('DELETE', path, { headers })).status, 200);
  assert.equal((await manifold.call('DELETE', path, { headers })).status, 404);
  assert.equal((await manifold.stats()).active_streams, 0, 'DELETE ends the lease at once');
});

scenario('a hostile camera name is text on the page', async (world) => {
  const { manifold } = await arrange(world);

  const viewer = await world.open(`${manifold.url}/?open=cam-script`);
  await viewer.plays('cam-script', 30_000);

  assert.ok((await viewer.page.locator('body').innerText()).includes(SCRIPT), 'the name is shown as it is');
  assert.equal(await viewer.page.evaluate(() => window.hacked), undefined);
  const page = await manifold.call('GET', '/');
  const policy = page.headers.get('content-security-policy');
  assert.match(policy, /script-src 'self'|default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline.*script|script-src[^;]*unsafe/);
});

scenario('broken and slow HTTP does not stop the service', async (world) => {
  const { manifold } = await arrange(world);
  const { hostname, port } = new URL(manifold.url);
  const lines = ['GET', '\0\0\0\0', 'POST /whep/cam-1 HTTP/1.1\r\nContent-Length: -5\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n'];
  const sockets = lines.map((line) => {
    const socket = connect(Number(port), hostname, () => socket.write(line));
    socket.on('error', () => {});
    return socket;
  });

  assert.equal((await manifold.call('GET', '/health')).status, 200);
  sockets.forEach((socket) => socket.destroy());
  assert.ok(manifold.child.alive);
});

/** An answer of the kind of RFC 9457, with a sentence for people. */
function assertProblem({ status, headers, json, text }, expected, sentence, what) {
  assert.equal(status, expected, `${what}: ${text}`);
  assert.match(headers.get('content-type') ?? '', /^application\/problem\+json/, what);
  assert.match(json.detail, sentence, what);
  assert.doesNotMatch(json.detail, /\n|0x/, `${what}: one sentence, no address of memory`);
  assert.ok(!text.includes(CANARY), what);
}

const isJson = ({ headers }) => /json/.test(headers.get('content-type') ?? '');

/** A GET of exactly this path: fetch would tidy it up. */
function raw(manifold, path) {
  const { hostname, port } = new URL(manifold.url);
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path }, (answer) => {
      let text = '';
      answer.on('data', (data) => (text += data));
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
    });
    asked.on('error', reject);
    asked.end();
  });
}
