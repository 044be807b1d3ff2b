// Tokens in the life of a session: renewed by heartbeats, expired, taken back, their keys changed.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { part } from '../harness/parts.mjs';
import { chromium } from '../harness/sdp.mjs';
import { KEY, token } from '../harness/token.mjs';
import { holds, pause, until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const run = promisify(execFile);

/** The shortest that the server takes. */
const TTL = 15_000;
/** From the end of a token to the end of its viewer, at most. */
const GRACE = 5_000;

const cameras = [{ id: 'cam-1', url: 'test://' }];
const keys = { auth: { mode: 'keys' }, 'auth.keys': { [KEY.id]: KEY.secret }, cameras };
const bearer = (text) => ({ headers: { authorization: `Bearer ${text}` } });
const admin = (changes) => token('', 'ada', { video: { roomJoin: false, roomAdmin: true }, ...changes });

/** The viewers' identities in the camera's room. */
async function viewers(manifold, credentials = {}) {
  const { json } = await manifold.call('GET', '/rooms/camera_cam-1', credentials);
  const participants = json.rooms[0]?.participants ?? [];
  return participants.filter((one) => !one.is_publisher).map((one) => one.identity);
}

/** The claims of the first reservation that a page makes. */
function reserved(viewer) {
  return viewer.page
    .waitForResponse((response) => response.url().endsWith('/stream/reserve') && response.ok())
    .then((response) => response.json());
}

const expiry = (text) => JSON.parse(Buffer.from(text.split('.')[1], 'base64url')).exp * 1000;

/** Waits until the page shows the words. */
const shows = (viewer, words, timeout) =>
  viewer.page.waitForFunction((text) => document.body.innerText.includes(text), words, { timeout });

scenario('heartbeats keep a tab alive beyond the time of its token', async (world) => {
  const manifold = await world.manifold({ auth: { token_ttl: '15s' }, cameras });
  const viewer = await world.open(manifold.url);
  const first = reserved(viewer);
  await viewer.page.locator('[data-open="cam-1"]').click();
  const { token: text } = await first;
  await viewer.plays('cam-1');
  const before = await viewers(manifold);

  await pause(expiry(text) + GRACE - Date.now());

  assert.deepEqual(await viewers(manifold), before, 'the same viewer, on the same reservation');
  await viewer.plays('cam-1');
  const stale = await manifold.whep('cam-1', text, chromium);
  assert.equal(stale.status, 401, 'its first token has expired all the same');
  assert.match(stale.json.detail, /^the token expired at /);
});

scenario('a viewer that never renews its token is ended within 5 s of its end, and the page says why', async (world) => {
  const manifold = await world.manifold({ auth: { token_ttl: '15s' }, cameras });
  const viewer = await world.open(manifold.url);
  let end = Infinity;
  await viewer.page.route('**/stream/heartbeat/**', (route) => (Date.now() < end ? route.abort() : route.continue()));
  const first = reserved(viewer);
  await viewer.page.locator('[data-open="cam-1"]').click();
  const { reservation_id: id, token: text } = await first;
  end = expiry(text);
  await viewer.plays('cam-1');
  const said = shows(viewer, 'its token expired and was not renewed', TTL + 2 * GRACE);

  await holds('it watches until then', async () => (await viewers(manifold)).includes(`viewer_${id}`), end - Date.now() - 500);
  await until('it is ended', async () => !(await viewers(manifold)).includes(`viewer_${id}`), {
    within: end + GRACE - Date.now(),
  });
  await said;
  assert.match(await manifold.metrics(), /^manifold_grants_ended_total\{reason="expired"\} 1$/m);
  // It may come back, with a reservation of its own.
  await viewer.plays('cam-1');
});

scenario('a viewer that an operator sends away is gone, is told so, and its token is refused', async (world) => {
  const manifold = await world.manifold(keys);
  const viewer = await world.open(manifold.url);
  const field = viewer.page.locator('dialog[open] input, form input[type="password"]').first();
  await field.fill(admin());
  await viewer.page.keyboard.press('Enter');
  const first = reserved(viewer);
  await viewer.page.locator('[data-open="cam-1"]').click();
  const { reservation_id: id, token: text } = await first;
  await viewer.plays('cam-1');

  const path = `/rooms/camera_cam-1/participants/viewer_${id}`;
  const foreign = admin({ attributes: { role: 'operator', sources: 'OTHERS' } });
  assert.equal((await manifold.call('DELETE', path, bearer(foreign))).status, 404, 'not by whose it is not');
  const removed = await manifold.call('DELETE', path, bearer(admin()));
  assert.equal(removed.status, 200, removed.text);
  assert.equal(removed.json.new_count, 0);

  await shows(viewer, 'an operator removed the viewer', GRACE);
  const refused = await manifold.whep('cam-1', text, chromium);
  assert.equal(refused.status, 401);
  assert.equal(refused.json.detail, 'the token was revoked: its viewer was sent away by an operator');
  const renewed = await manifold.call('POST', `/api/v1/stream/heartbeat/${id}`, bearer(text));
  assert.equal(renewed.status, 401, 'it gets no fresh one either');
  await holds('it stays away', async () => (await viewers(manifold, bearer(admin()))).length === 0, 4_000);
});

scenario('LiveKit’s RemoveParticipant does the same', async (world) => {
  const manifold = await world.manifold({ cameras });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const [identity] = await viewers(manifold);
  const call = (body) => manifold.call('POST', '/twirp/livekit.RoomService/RemoveParticipant', { body });

  const done = await call({ room: 'camera_cam-1', identity });
  assert.deepEqual([done.status, done.json], [200, {}]);
  await shows(viewer, 'an operator removed the viewer', GRACE);
  const again = await call({ room: 'camera_cam-1', identity });
  assert.deepEqual([again.status, again.json.code], [404, 'not_found']);
});

scenario('keys are changed while the server runs', async (world) => {
  const manifold = await world.manifold(keys);
  const path = world.file('manifold.toml');
  const text = await readFile(path, 'utf8');
  const next = { id: 'next', secret: 'another-secret-of-the-tests-with-32-characters' };
  const ask = async (key) => (await manifold.call('GET', '/api/v1/cameras', bearer(admin({ key })))).status;
  const body = { camera_id: 'cam-1', user_id: 'x' };
  const place = async (key) => (await manifold.call('POST', '/api/v1/stream/reserve', { body, ...bearer(admin({ key })) })).json;
  const old = await place(KEY);
  assert.equal(await ask(next), 401, 'it is not known yet');

  // Both hold, and the new one signs. SIGHUP has it read at once.
  await writeFile(path, text.replace(`${KEY.id} =`, `${next.id} = "${next.secret}"\n${KEY.id} =`));
  process.kill(manifold.pid, 'SIGHUP');
  await until('the new key is known', async () => (await ask(next)) === 200);
  assert.equal(await ask(KEY), 200, 'and the old one still');
  assert.equal((await manifold.whep('cam-1', old.token, chromium)).status, 201);
  const fresh = await place(KEY);
  const { iss } = JSON.parse(Buffer.from(fresh.token.split('.')[1], 'base64url'));
  assert.equal(iss, next.id);

  // Settings that are wrong change nothing.
  await writeFile(path, `${text}\n[auth.keys]\nshort = "x"\n`);
  process.kill(manifold.pid, 'SIGHUP');
  await until('it is said', () => /the keys stay as they are/.test(manifold.logs));
  assert.deepEqual([await ask(KEY), await ask(next)], [200, 200]);

  // Without the old one its tokens and viewers are gone; nobody needs to tell the server.
  await writeFile(path, text.replace(KEY.id, next.id).replace(KEY.secret, next.secret));
  await until('the old key is gone', async () => (await ask(KEY)) === 401, { within: GRACE });
  const lives = async () => (await manifold.call('GET', '/rooms/camera_cam-1', bearer(admin({ key: next })))).text;
  await until('so is who came with it', async () => !(await lives()).includes(old.reservation_id), { within: GRACE });
  assert.ok((await lives()).includes(fresh.reservation_id), 'who has a token of the new one stays');
  assert.equal((await manifold.whep('cam-1', fresh.token, chromium)).status, 201);
  for (const secret of [KEY.secret, next.secret]) assert.ok(!manifold.logs.includes(secret), 'no key is logged');
});

scenario('manifold token makes tokens that the server takes, and shows no key', async (world) => {
  const manifold = await world.manifold(keys);
  const make = async (...args) => {
    const { stdout } = await run(part('manifold'), ['token', '--config', world.file('manifold.toml'), ...args]);
    assert.ok(!stdout.includes(KEY.secret));
    return stdout.trim();
  };
  const status = async (text, path) => (await manifold.call('GET', path, bearer(text))).status;
  const boss = await make('--user', 'ada', '--admin');
  assert.deepEqual([await status(boss, '/api/v1/cameras'), await status(boss, '/metrics')], [200, 200]);
  const operator = await make('--user', 'otto', '--role', 'operator', '--sources', 'TEST');
  assert.deepEqual([await status(operator, '/api/v1/cameras/cam-1'), await status(operator, '/metrics')], [200, 403]);
  const foreign = await make('--user', 'fay', '--role', 'operator', '--sources', 'OTHERS');
  assert.equal(await status(foreign, '/api/v1/cameras/cam-1'), 404);

  const told = JSON.parse(await make('--user', 'vera', '--camera', 'cam-1', '--ttl', '1m', '--json'));
  assert.deepEqual([told.role, told.camera_id, told.key], ['viewer', 'cam-1', KEY.id]);
  assert.ok(Math.abs(Date.parse(told.expires_at) - Date.now() - 60_000) < 30_000, told.expires_at);
  const reserve = (user) =>
    manifold.call('POST', '/api/v1/stream/reserve', { body: { camera_id: 'cam-1', user_id: user }, ...bearer(told.token) });
  assert.equal((await reserve('somebody')).status, 403, 'for herself alone');
  const mine = await reserve('vera');
  assert.equal(mine.status, 200, mine.text);
  assert.equal((await manifold.whep('cam-1', mine.json.token, chromium)).status, 201);

  const failure = await make('--user', 'otto', '--role', 'operator').catch((error) => error);
  assert.equal(failure.code, 1);
  assert.match(failure.stderr, /^manifold: say whose operator it is, with --sources A,B or "\*"\n$/);
  assert.ok(!manifold.logs.includes(boss), 'no token is logged');
  assert.ok(!manifold.logs.includes(KEY.secret));
});
