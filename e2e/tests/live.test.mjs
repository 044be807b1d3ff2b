// `/ws/stream/stats` over real sockets: what comes first and how often, clients that do not read, too many of
// them, tokens that end while the socket is open, renewal, and what is no message.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';

import { Socket } from '../harness/socket.mjs';
import { KEY, token } from '../harness/token.mjs';
import { holds, until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const PATH = '/ws/stream/stats';
/** The most sockets of one address, and of all. */
const [OF_ADDRESS, OF_ALL] = [192, 256];
/** From the end of a token to the end of what it opened. */
const GRACE = 5_000;
const SMALL = 'test://?width=192&height=108&fps=1&gop=1';

const keys = { auth: { mode: 'keys' }, 'auth.keys': { [KEY.id]: KEY.secret } };
const bearer = (text) => ({ authorization: `Bearer ${text}` });
const admin = (changes) => token('', 'ada', { video: { roomJoin: false, roomAdmin: true }, ...changes });
const expiry = (text) => JSON.parse(Buffer.from(text.split('.')[1], 'base64url')).exp * 1000;

const open = (manifold, options = {}) => Socket.open(manifold.url, { path: PATH, ...options });
const figures = (message) => message.type === 'STREAM_STATS';

/** A figure of the server's own. */
async function counted(manifold, name, headers = {}) {
  const { text } = await manifold.call('GET', '/metrics?format=prometheus', { headers });
  return Number(text.match(new RegExp(`^${name} (\\d+)`, 'm'))[1]);
}

scenario('the whole comes first, then changes, at most four times a second, and each sees what is his', async (world) => {
  const manifold = await world.manifold({
    ...keys,
    sources: [{ id: 'METRO', name: 'Metro', limit: 50 }, { id: 'TAXI', name: 'Taxi', limit: 50 }],
    cameras: [
      { id: 'cam-1', source: 'METRO', url: SMALL, close_after: '1h' },
      { id: 'cam-2', source: 'TAXI', url: SMALL, close_after: '1h' },
    ],
  });
  const call = (method, path, body) => manifold.call(method, path, { body, headers: bearer(admin()) });
  const reserve = async (camera) => (await call('POST', '/api/v1/stream/reserve', { camera_id: camera, user_id: 'u' })).json;
  assert.equal((await open(manifold)).status, 401, 'without a token nothing is told');

  const all = await open(manifold, { headers: bearer(admin()) });
  const metro = admin({ attributes: { role: 'operator', sources: 'METRO' } });
  const his = await Socket.open(manifold.url, { path: `${PATH}?token=${metro}` });
  const first = [await until('the whole', () => all.messages[0]), await until('his part', () => his.messages[0])];
  assert.deepEqual(first.map(({ type }) => type), ['STREAM_STATS', 'STREAM_STATS']);
  assert.deepEqual(Object.keys(first[0].data.source_counts).sort(), ['METRO', 'TAXI']);
  assert.deepEqual(Object.keys(first[1].data.source_counts), ['METRO']);
  assert.ok(Math.abs(Date.now() - Date.parse(first[0].timestamp)) < 60_000);

  // Forty changes as fast as they go.
  all.messages = [];
  const begun = Date.now();
  for (let index = 0; index < 40; index += 1) await reserve('cam-1');
  await until('the last of them', () => all.messages.some((message) => figures(message) && message.data.source_counts.METRO === 40));
  const told = all.messages.filter(figures).length;
  assert.ok(told <= (Date.now() - begun) / 250 + 2, `${told} messages in ${Date.now() - begun} ms`);
  await until('he is told, too', () => his.messages.some((message) => figures(message) && message.data.source_counts.METRO === 40));

  his.messages = [];
  await reserve('cam-2');
  await until('that of TAXI is told', () => all.messages.some((message) => figures(message) && message.data.source_counts.TAXI === 1));
  const leaked = his.messages.filter(({ data }) => JSON.stringify(data).includes('TAXI') || JSON.stringify(data).includes('cam-2'));
  assert.deepEqual(leaked, [], 'and not to him');
  assert.equal(await counted(manifold, 'manifold_live_sockets', bearer(admin())), 2);
});

scenario('who never reads is dropped, holds little, and others are told in the meantime', async (world) => {
  const cameras = Array.from({ length: 120 }, (_, index) => ({ id: `cam-${index}`, name: 'x'.repeat(200), url: SMALL, close_after: '1s' }));
  const manifold = await world.manifold({ cameras, log: { level: 'info' } });
  await Promise.all(cameras.map(({ id }) => manifold.reserve(id)));
  const reader = await open(manifold);
  await reader.of('STREAM_STATS');
  const deaf = await open(manifold);
  deaf.stream.pause();
  assert.equal(await counted(manifold, 'manifold_live_sockets'), 2);

  let changes = 0;
  await until(
    'the deaf one is dropped',
    async () => {
      const { json } = await manifold.reserve('cam-0');
      await manifold.release(json.reservation_id);
      changes += 1;
      reader.messages = reader.messages.slice(-8);
      return (await counted(manifold, 'manifold_live_sockets_slow_total')) === 1;
    },
    { within: 100_000, every: 100, show: () => ({ changes, ended: deaf.ended }) },
  );

  assert.equal(await counted(manifold, 'manifold_live_sockets'), 1);
  reader.messages = [];
  const { json } = await manifold.reserve('cam-1');
  await reader.next('the other one is told', (message) => figures(message) && message.data.camera_stats.some((row) => row.camera_id === 'cam-1' && row.viewer_count === 2));
  await manifold.release(json.reservation_id);
  deaf.destroy();
});

scenario('too many sockets are answered clearly, and a place that is given back is taken', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: SMALL }] });
  const sockets = await Promise.all(Array.from({ length: OF_ADDRESS }, () => open(manifold)));
  assert.ok(sockets.every(({ status }) => status === 101));

  const over = await open(manifold);
  assert.equal(over.status, 503);
  assert.match(over.head, /content-type: application\/problem\+json/i);
  await until('the sentence', () => over.rest.toString().includes('too many dashboards are connected'));
  assert.equal(await counted(manifold, 'manifold_live_sockets_refused_total'), 1);

  // Others have places left, until all are taken.
  const others = await Promise.all(Array.from({ length: OF_ALL - OF_ADDRESS }, () => open(manifold, { from: '127.0.0.2' })));
  assert.ok(others.every(({ status }) => status === 101));
  assert.equal((await open(manifold, { from: '127.0.0.3' })).status, 503);

  sockets[0].close();
  await until('its place is free', async () => (await open(manifold)).status === 101);
  for (const socket of [...sockets.slice(1), ...others]) socket.destroy();
  await until('all are forgotten', async () => (await counted(manifold, 'manifold_live_sockets')) === 1);
});

scenario('the socket ends within 5 s of its token: expired, its key removed, its viewer sent away', async (world) => {
  const manifold = await world.manifold({ ...keys, cameras: [{ id: 'cam-1', url: SMALL }] });
  const brief = admin({ exp: Math.floor(Date.now() / 1000) + 4 });
  const expires = await open(manifold, { headers: bearer(brief) });
  assert.equal(expires.status, 101);

  const body = { camera_id: 'cam-1', user_id: 'u' };
  const { json: place } = await manifold.call('POST', '/api/v1/stream/reserve', { body, headers: bearer(admin()) });
  const viewer = await open(manifold, { headers: bearer(place.token) });
  if (viewer.status === 101) {
    const path = `/rooms/camera_cam-1/participants/viewer_${place.reservation_id}`;
    assert.equal((await manifold.call('DELETE', path, { headers: bearer(admin()) })).status, 200);
    assert.equal(await viewer.end({ within: GRACE }), 1008);
    assert.match(viewer.closed.reason, /revoked|sent away|removed/);
  } else {
    assert.equal(viewer.status, 403, 'viewers are told nothing of others');
  }

  assert.equal(await expires.end({ within: expiry(brief) + GRACE - Date.now() }), 1008);
  assert.ok(Date.now() >= expiry(brief), 'not before its time');
  assert.match(expires.closed.reason, /^the token expired at /);

  const removed = await open(manifold, { headers: bearer(admin()) });
  await removed.of('STREAM_STATS');
  const path = world.file('manifold.toml');
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(`${KEY.id} =`, 'next =').replace(KEY.secret, 'another-secret-of-the-tests-with-32-characters'));
  process.kill(manifold.pid, 'SIGHUP');
  assert.equal(await removed.end({ within: GRACE }), 1008);
});

scenario('renewal over the socket keeps a viewer who sends no heartbeat, and without it he is ended', async (world) => {
  const manifold = await world.manifold({ auth: { token_ttl: '15s' }, cameras: [{ id: 'cam-1', url: 'test://' }] });
  const page = await world.open(manifold.url);
  await page.page.route('**/stream/heartbeat/**', (route) => route.abort());
  const answer = page.page.waitForResponse((response) => response.url().endsWith('/stream/reserve') && response.ok());
  await page.page.locator('[data-open="cam-1"]').click();
  const place = await (await answer).json();
  await page.plays('cam-1');
  const watches = async () => (await manifold.get('/rooms/camera_cam-1')).rooms[0]?.participants.some(({ identity }) => identity === `viewer_${place.reservation_id}`);

  const socket = await open(manifold);
  let current = place.token;
  const renew = async () => {
    socket.tell({ type: 'RENEW', token: current });
    const { data } = await socket.of('TOKEN');
    assert.ok(Date.parse(data.expires_at) >= expiry(current), 'no earlier than before');
    current = data.token;
  };
  // Beyond the end of the first token, and of the time that a viewer has after it.
  const end = expiry(place.token) + GRACE + 1_000;
  let renewed = 0;
  await holds('he watches', async () => {
    if (expiry(current) - Date.now() < 9_000) {
      await renew();
      renewed += 1;
    }
    return watches();
  }, end - Date.now(), 500);
  assert.ok(renewed >= 1);
  await page.advances('cam-1');

  await until('he is ended', async () => !(await watches()), { within: expiry(current) + GRACE - Date.now() });
  assert.ok(Date.now() >= expiry(current) - 1_000, 'not before');
  socket.tell({ type: 'RENEW', token: current });
  assert.match((await socket.of('ERROR')).data.message, /the token expired at /);
});

scenario('what is no message is answered or ends the socket, and harms nobody else', async (world) => {
  const manifold = await world.manifold({ ...keys, cameras: [{ id: 'cam-1', url: SMALL }] });
  const headers = bearer(admin());
  const witness = await open(manifold, { headers });
  await witness.of('STREAM_STATS');

  const socket = await open(manifold, { headers });
  const wrong = ['', 'null', '[]', '{"type":"RENEW"}', '{"type":"SHOUT","token":"x"}', `{"type":"RENEW","token":${'['.repeat(500)}`];
  for (const text of wrong) {
    socket.text(text);
    assert.match((await socket.of('ERROR')).data.message, /RENEW/, text.slice(0, 20));
  }
  const bad = [
    ['rubbish', /token/],
    [admin(), /viewer|reservation/],
    [token('camera_cam-1', 'viewer_00000000-0000-4000-8000-000000000000'), /reservation/],
  ];
  for (const [text, sentence] of bad) {
    const other = await open(manifold, { headers });
    other.tell({ type: 'RENEW', token: text });
    const { message } = (await other.of('ERROR')).data;
    assert.match(message, sentence);
    assert.ok(!message.includes(text), 'no token is repeated');
    other.close();
  }
  socket.ping();
  socket.binary(Buffer.from('{"type":"RENEW"}'));
  assert.equal(await socket.end(), 1003);

  const long = await open(manifold, { headers });
  long.text('x'.repeat(20_000));
  assert.equal(await long.end(), 1009);
  const broken = await open(manifold, { headers });
  // Reserved bits that nobody agreed upon (RFC 6455 §5.2).
  broken.raw(Buffer.from([0xf1, 0x80, 0, 0, 0, 0]));
  await until('a frame that is none ends it', () => broken.ended || broken.closed);

  witness.messages = [];
  const body = { camera_id: 'cam-1', user_id: 'u' };
  await manifold.call('POST', '/api/v1/stream/reserve', { body, headers });
  await witness.next('the witness is told', (message) => figures(message) && message.data.active_streams === 1);
});
