// Who watched what: true bytes, true times, and a trail in which nothing can be changed unseen.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';

import { LEFT } from '../harness/browser.mjs';
import { Child } from '../harness/process.mjs';
import { part } from '../harness/parts.mjs';
import { chromium } from '../harness/sdp.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const HOUR = 3_600_000;

scenario('who watched is in the trail with the bytes that his browser received', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const { rooms: [room] } = await manifold.get('/rooms/camera_cam-1');
  const { identity } = room.participants.find((participant) => !participant.is_publisher);
  const id = identity.slice('viewer_'.length);
  await until('the page tells of its decoded frames', async () => (await trace(manifold, id)).frames_decoded > 100, {
    within: 30_000,
  });
  // What is on its way when the page closes would be sent and not received.
  await camera.kill();
  await until('the camera is down', async () => (await manifold.camera('cam-1')).status === 'OFFLINE');
  let received;
  const isSame = async () => received === (received = await bytes(viewer));
  await until('nothing more arrives', isSame, { every: 1_000, show: () => received });
  await viewer.close();

  const row = await until('the row is there', async () => (await rows(manifold, 'kind=watch_ended'))[0], LEFT);

  assert.deepEqual([row.reservation_id, row.camera_id, row.source], [id, 'cam-1', 'TEST']);
  assert.match(row.actor, /.+/);
  const more = row.bytes_sent / received - 1;
  assert.ok(Math.abs(more) < 0.01, `${row.bytes_sent} bytes sent, ${received} received`);
  assert.ok(Math.abs(Date.parse(row.to) - Date.now()) < 20_000 && Date.parse(row.from) < Date.parse(row.to));
  assert.match(row.reason, /closed its connection|ended by the client|released/);

  const life = await trace(manifold, id);
  assert.deepEqual([life.state, life.bytes_sent, life.found_in], ['ended', row.bytes_sent, 'memory']);
  const words = life.steps.map((step) => step.step);
  for (const word of ['asked', 'reserved', 'token_issued', 'camera_live', 'offered', 'answered', 'path', 'connected', 'first_media', 'heard', 'decoded', 'ended']) {
    assert.ok(words.includes(word), `${word} is missing in ${words}`);
  }
  const times = life.steps.map((step) => step.after_ms);
  assert.deepEqual(times, times.toSorted((a, b) => a - b));

  // After a restart the trail alone remembers.
  await manifold.restart();
  const kept = await trace(manifold, id);
  assert.equal(kept.found_in, 'audit');
  assert.deepEqual([kept.steps, kept.bytes_sent, kept.reason], [life.steps, life.bytes_sent, life.reason]);
  const shown = await command(world, manifold, ['trace', id]);
  assert.equal(shown.code, 0, shown.output);
  assert.match(shown.output, /DTLS done \d+ ms after the offer/);
  const asJson = await command(world, manifold, ['trace', id, '--json']);
  assert.deepEqual(JSON.parse(asJson.output).steps, life.steps);
  assert.equal((await command(world, manifold, ['trace', '00000000-0000-4000-8000-000000000000'])).code, 3);
});

scenario('a join that fails is told step by step, and every line of it in the log has its id', async (world) => {
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: 'test://' },
      { id: 'cam-2', url: 'test://' },
    ],
    sources: [{ id: 'TEST', name: 'Test agency', name_ar: 'جهة', limit: 1 }],
  });
  const { json } = await manifold.reserve('cam-1', 'amal');
  // An offer of a browser that never sends a check.
  assert.equal((await manifold.whep('cam-1', json.token, chromium)).status, 201);

  const life = await trace(manifold, json.reservation_id);

  assert.deepEqual(life.steps.map((step) => step.step).filter((word) => word !== 'camera_live'), [
    'asked', 'reserved', 'token_issued', 'offered', 'answered',
  ]);
  const forged = `${json.token.slice(0, -4)}AAAA`;
  assert.equal((await manifold.whep('cam-1', forged, chromium)).status, 401);
  const refused = (await trace(manifold, json.reservation_id)).steps.at(-1);
  assert.equal(refused.step, 'token_refused');

  assert.equal((await manifold.reserve('cam-2', 'badr')).status, 429);
  const [full] = await until('the refusal is written', async () => {
    const found = await rows(manifold, 'kind=watch_refused&user=badr');
    return found.length > 0 && found;
  });
  assert.match(full.reason, /used up: 1 of 1/);
  const told = await trace(manifold, full.reservation_id);
  assert.deepEqual([told.state, told.source], ['refused', null]);

  await manifold.release(json.reservation_id);
  await until('the end is written', async () => (await rows(manifold, 'kind=watch_ended')).length === 1);
  const messages = ['Creating new stream resources (first viewer)', 'reservation ended', 'Last viewer disconnected - cleaning up all stream resources', 'token not accepted', 'offer answered'];
  for (const message of messages) {
    const line = await until(`it is logged: ${message}`, () => lines(manifold).find((line) => line.message === message));
    assert.equal(line.reservation_id, json.reservation_id, message);
  }
  const cleaned = await until('the stream is gone', () =>
    lines(manifold).find((line) => line.message === 'All stream resources cleaned up (last viewer)'),
  );
  assert.deepEqual([cleaned.reservation_id, cleaned.camera_id], [json.reservation_id, 'cam-1']);
});

scenario('the trail is asked by user, camera and time, also as CSV that no spreadsheet runs', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://' }, { id: 'cam-2', url: 'test://' }] });
  const formula = '=HYPERLINK("http://evil","x")';
  for (const [camera, user] of [['cam-1', 'amal'], ['cam-2', formula], ['cam-1', 'badr']]) {
    const { json } = await manifold.reserve(camera, user);
    await manifold.release(json.reservation_id);
  }
  await until('all are written', async () => (await rows(manifold, 'kind=watch_ended')).length === 3);

  const users = async (query) => (await rows(manifold, `kind=watch_ended&${query}`)).map((row) => row.actor);
  assert.deepEqual(await users('camera=cam-1'), ['amal', 'badr']);
  assert.deepEqual(await users('user=badr'), ['badr']);
  assert.deepEqual(await users('source=OTHER'), []);
  const ago = new Date(Date.now() - HOUR).toISOString();
  const ahead = new Date(Date.now() + HOUR).toISOString();
  assert.equal((await users(`from=${ago}&to=${ahead}`)).length, 3);
  assert.deepEqual(await users(`to=${ago}`), []);
  const page = await manifold.get('/api/v1/audit?limit=2');
  assert.equal(page.rows.length, 2);
  assert.deepEqual((await manifold.get(`/api/v1/audit?limit=1&after=${page.next_after}`)).rows[0].number, 3);
  assert.equal((await manifold.call('GET', '/api/v1/audit?from=yesterday')).status, 400);
  assert.equal((await manifold.call('GET', '/api/v1/audit?kind=all')).status, 400);

  const csv = await manifold.call('GET', '/api/v1/audit?kind=watch_ended', { headers: { accept: 'text/csv' } });
  assert.match(csv.headers.get('content-type'), /^text\/csv/);
  assert.equal(csv.text.split('\r\n').length, 5, 'a head, three rows, and an end');
  assert.ok(csv.text.includes(`,"'=HYPERLINK(""http://evil"",""x"")",`), csv.text);

  const exported = await command(world, manifold, ['audit', 'export', '--kind', 'watch_ended']);
  assert.equal(exported.output, csv.text);
  const asked = await command(world, manifold, ['audit', 'query', '--user', 'amal', '--json']);
  assert.ok(JSON.parse(asked.output).rows.every((row) => row.actor === 'amal'));
});

scenario('a server that is killed leaves a whole trail, and a byte that is changed is found', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://' }], listen: ['127.0.0.1:0'] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  await until('the begin is written', async () => (await rows(manifold, 'kind=watch_begun')).length === 1);
  const live = await command(world, manifold, ['audit', 'verify', '--json']);
  assert.equal(live.code, 0, live.output);
  const { head } = JSON.parse(live.output);

  manifold.child.signal('SIGKILL');
  await manifold.child.ended;

  const data = world.file('data');
  const offline = await command(world, manifold, ['audit', 'verify', '--data-dir', data, '--head', head]);
  assert.equal(offline.code, 0, offline.output);
  assert.match(offline.output, /^whole: \d+ rows/);
  const wrong = `${head.slice(0, -1)}${head.endsWith('0') ? '1' : '0'}`;
  assert.equal((await command(world, manifold, ['audit', 'verify', '--data-dir', data, '--head', wrong])).code, 1);

  await manifold.launch(manifold.args, manifold.env);
  const [cut] = await until('who watched then is told', async () => {
    const found = await rows(manifold, 'kind=watch_cut');
    return found.length > 0 && found;
  });
  assert.equal(cut.camera_id, 'cam-1');
  assert.match(cut.reason, /ended without a word/);
  const busy = await command(world, manifold, ['audit', 'verify', '--data-dir', data]);
  assert.equal(busy.code, 2, 'the file is in use');
  assert.match(busy.output, /in use by another process/);
  await manifold.child.stop();

  const path = `${data}/manifold.redb`;
  const whole = await readFile(path);
  // Also in pages that are not used any more: where the row stands the library alone knows.
  const changed = Buffer.from(whole.toString('latin1').replaceAll('watch_cut', 'watch_cuu'), 'latin1');
  assert.ok(!changed.equals(whole), 'the row is found in the file');
  await writeFile(path, changed);
  const tampered = await command(world, manifold, ['audit', 'verify', '--data-dir', data]);
  assert.ok(tampered.code === 1 || tampered.code === 2, tampered.output);
  assert.match(tampered.output, /broken at row|damaged/);
});

/** The whole lines of the log, those of tracing. */
function lines(manifold) {
  const whole = manifold.logs.split('\n').slice(0, -1);
  return whole.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
}

async function rows(manifold, query) {
  return (await manifold.get(`/api/v1/audit?${query}`)).rows;
}

function trace(manifold, id) {
  return manifold.get(`/api/v1/trace/${id}`);
}

/** What the page's connection received, picture and sound. */
async function bytes(viewer) {
  const { video, audio } = await viewer.inbound('cam-1');
  return video.bytesReceived + (audio?.bytesReceived ?? 0);
}

let commands = 0;

/** Runs `manifold` with these arguments, asking this server. */
async function command(world, manifold, args) {
  const child = new Child('manifold', part('manifold'), args, {
    env: { MANIFOLD_URL: manifold.url },
    log: world.file(`command-${(commands += 1)}.log`),
  });
  world.own(child);
  const code = await child.ended;
  return { code, output: child.output };
}
