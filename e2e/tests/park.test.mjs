// The camera park while people watch: cameras are added, moved, deleted and imported by the API, kept over a
// restart, and their passwords shown nowhere.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';

import { LEFT } from '../harness/browser.mjs';
import { manifold as command } from '../harness/command.mjs';
import { scenario } from '../harness/world.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';

const CANARY = 'c4nary-Pa55word';
/** One that is always there: a settings file without any camera has the shipped ones. */
const cameras = [{ id: 'still-here', url: 'test://' }];

scenario('a camera is added, moved and deleted while a page is open', async (world) => {
  const first = await world.camera({ auth: 'digest', password: CANARY });
  const second = await world.camera({ auth: 'digest', password: CANARY, size: '320x240' });
  const manifold = await world.manifold({ cameras });
  const viewer = await world.open(manifold.url);
  await viewer.page.waitForSelector('[data-open="still-here"]');

  const added = await add(manifold, { id: 'gate', url: first.url('/h264'), close_after: '1s' });
  assert.equal(added.status, 201, added.text);
  assert.equal(added.headers.get('location'), '/api/v1/cameras/gate');
  await viewer.page.locator('[data-open="gate"]').click();
  await viewer.plays('gate');
  await viewer.advances('gate');
  assert.equal((await viewer.inbound('gate')).video.frameWidth, 640);
  const before = await connections(viewer, manifold);

  const moved = await manifold.call('PUT', '/api/v1/cameras/gate', { body: { url: second.url('/h264') } });
  assert.equal(moved.status, 200, moved.text);
  await until('the picture is that of the other camera', async () => (await viewer.inbound('gate')).video?.frameWidth === 320);
  await viewer.plays('gate');
  await viewer.advances('gate');
  assert.deepEqual(await connections(viewer, manifold), before, 'the same connection on the same reservation');
  await until('the first camera is let go', () => first.connections() === 0);

  const deleted = await manifold.call('DELETE', '/api/v1/cameras/gate');
  assert.equal(deleted.status, 200, deleted.text);
  const tile = viewer.page.locator('[data-camera="gate"]');
  await until('the tile says why', async () => /Camera removed/.test(await tile.innerText()), { show: () => tile.innerText() });
  assert.match(await tile.innerText(), /camera was removed|no camera gate|camera is gone/i);
  await until('its lease is back', async () => (await manifold.stats()).active_streams === 0, { within: 5_000 });
  await until('its puller is gone', () => second.connections() === 0, { within: 5_000 });
  await until('the list is without it', async () => (await viewer.page.locator('[data-open="gate"]').count()) === 0);
  assert.equal((await manifold.call('GET', '/api/v1/cameras/gate')).status, 404);
  assert.deepEqual((await manifold.get('/rooms')).rooms, []);
  assert.equal((await manifold.call('DELETE', '/api/v1/cameras/gate')).status, 404, 'a second time there is none');

  await add(manifold, { id: 'gate', url: first.url('/h264'), close_after: '1s' });
  await viewer.page.locator('[data-camera="gate"]').focus();
  await viewer.page.keyboard.press('Delete');
  await viewer.page.locator('[data-open="gate"]').click();
  await viewer.plays('gate');
  assert.deepEqual(viewer.errors, []);
  await secretNowhere(manifold, viewer);

  const rows = await changes(manifold, 'gate', 4);
  assert.deepEqual(rows.map((row) => row.action), ['camera_added', 'camera_changed', 'camera_deleted', 'camera_added']);
  assert.deepEqual([...new Set(rows.map((row) => row.source))], ['TEST']);
  assert.ok(rows[1].reason.startsWith(`url from rtsp://127.0.0.1:${first.port}/h264 to rtsp://127.0.0.1:${second.port}`));
});

scenario('a list is imported whole or not at all, and each bad line is named', async (world) => {
  const manifold = await world.manifold({ cameras });
  const rows = Array.from({ length: 500 }, (_, n) => ({
    id: `cam-${n}`,
    name: `Camera ${n}`,
    source: 'TEST',
    url: `rtsp://admin:${CANARY}@192.0.2.1/${n}`,
  }));
  const bad = [
    ['url', (row) => ({ ...row, url: `gopher://admin:${CANARY}@192.0.2.1/` }), /gopher|rtsp/],
    ['source', (row) => ({ ...row, source: 'NAVY' }), /there is no such source; use TEST/],
    ['id', (row) => ({ ...row, id: 'white space' }), /./],
    ['id', (row) => ({ ...row, id: 'still-here' }), /there is a camera still-here already|has the same id/],
    ['url', (row) => ({ ...row, url: 'rtsp://169.254.169.254/' }), /link-local|metadata|169\.254/],
  ];
  const spoilt = rows.map((row, n) => (n % 2 === 0 ? row : bad[((n - 1) / 2) % bad.length][1](row)));

  for (const [format, text, firstRow] of [
    ['application/json', JSON.stringify(spoilt), 1],
    ['text/csv', csv(spoilt), 2],
  ]) {
    const refused = await importList(manifold, format, text);
    assert.equal(refused.status, 400, refused.text);
    const told = new Map();
    for (const problem of refused.json.problems) told.set(problem.row, [...(told.get(problem.row) ?? []), problem]);
    for (const n of rows.keys()) {
      const problems = told.get(n + firstRow);
      if (n % 2 === 0) {
        assert.equal(problems, undefined, `${format}: row ${n + firstRow} is good: ${JSON.stringify(problems)}`);
        continue;
      }
      const [key, , words] = bad[((n - 1) / 2) % bad.length];
      const fits = problems?.some((problem) => problem.key === key && words.test(problem.sentence));
      assert.ok(fits, `${format}: row ${n + firstRow}: ${JSON.stringify(problems)}`);
    }
    assert.match(refused.json.detail, /^no camera was imported, for \d+ problems: row \d+: /);
    assert.ok(!refused.text.includes(CANARY), 'a problem does not quote passwords');
    assert.equal((await manifold.get('/api/v1/cameras')).total, 1, 'nothing is half imported');
  }

  const asCsv = await importList(manifold, 'text/csv', csv(rows.slice(0, 250)));
  assert.deepEqual([asCsv.status, asCsv.json], [200, { added: 250, changed: 0 }], asCsv.text);
  const all = JSON.stringify(rows);
  const again = await importList(manifold, 'application/json', all);
  assert.equal(again.status, 400);
  assert.equal(again.json.problems.length, 250);
  const changed = await importList(manifold, 'application/json', all, '?existing=change');
  assert.deepEqual([changed.status, changed.json], [200, { added: 250, changed: 250 }], changed.text);
  assert.equal((await manifold.get('/api/v1/cameras')).total, 501);
  assert.equal((await manifold.get('/api/v1/cameras?search=camera%20499')).cameras[0].id, 'cam-499');
  const page = await manifold.get('/api/v1/cameras?limit=7&offset=495');
  assert.deepEqual([page.cameras.length, page.total], [6, 501]);

  await manifold.restart();
  assert.equal((await manifold.get('/api/v1/cameras?limit=1')).total, 501);
  const kept = await manifold.camera('cam-77');
  assert.deepEqual([kept.name, kept.has_credentials, kept.origin], ['Camera 77', true, 'stored']);
  await secretNowhere(manifold);
  assert.equal((await changes(manifold, 'cam-77', 2)).length, 2, 'a row for each camera of a list');
});

scenario('an added camera plays after a restart, and tells in a sentence where its key is lost', async (world) => {
  const camera = await world.camera({ auth: 'digest', password: CANARY });
  const manifold = await world.manifold({ cameras, log: { level: 'trace' } });
  await add(manifold, { id: 'gate', url: camera.url('/h264'), close_after: '0s' });
  const key = world.file('data/manifold.key');
  assert.equal((await stat(key)).mode & 0o777, 0o600, 'the key is for the server alone');

  await manifold.restart();
  const viewer = await world.open(`${manifold.url}/?open=gate`);
  await viewer.plays('gate');
  await secretNowhere(manifold, viewer);
  await viewer.close();
  await until('nobody watches', async () => (await manifold.stats()).active_streams === 0, LEFT);

  await manifold.child.stop();
  await rename(key, `${key}.safe`);
  await manifold.launch(manifold.args, manifold.env);
  const lost = await manifold.camera('gate');
  assert.equal(lost.status, 'ERROR');
  assert.match(lost.reason, /manifold\.key/);
  const page = await world.open(`${manifold.url}/?open=gate`);
  const tile = page.page.locator('[data-camera="gate"]');
  await until('the tile says it', async () => /manifold\.key/.test(await tile.innerText()), { show: () => tile.innerText() });

  await manifold.child.stop();
  await writeFile(key, randomBytes((await stat(`${key}.safe`)).size), { mode: 0o600 });
  await manifold.launch(manifold.args, manifold.env);
  const foreign = await manifold.camera('gate');
  assert.equal(foreign.status, 'ERROR');
  assert.match(foreign.reason, /key/);
  assert.ok(foreign.reason.split(/\. /).length === 1, `one sentence: ${foreign.reason}`);

  await manifold.child.stop();
  await rm(key);
  await rename(`${key}.safe`, key);
  await manifold.launch(manifold.args, manifold.env);
  const back = await world.open(`${manifold.url}/?open=gate`);
  await back.plays('gate');
});

scenario('hostile names are text on the page, and what is too long is refused', async (world) => {
  const manifold = await world.manifold({ cameras });
  const names = {
    script: '<script>window.owned = 1</script><img src=x onerror="window.owned = 1">',
    rtl: 'Gate ‮etag‬ بوابة',
    emoji: '👮🏽‍♀️🚓 ﷽ Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢',
    quote: `'"; DROP TABLE cameras; --`,
  };
  for (const [id, name] of Object.entries(names)) {
    const body = { id, name, name_ar: name, location: name, url: 'test://' };
    const added = await add(manifold, body);
    assert.equal(added.status, 201, added.text);
    assert.equal((await manifold.camera(id)).name, name, 'as it was written');
  }
  for (const name of ['x'.repeat(10_240), 'two\nlines', 'nul\u0000']) {
    const refused = await add(manifold, { id: 'refused', name, url: 'test://' });
    assert.equal(refused.status, 400, refused.text);
    assert.match(refused.json.problems[0].sentence, /./);
    assert.ok(refused.text.length < 2_000, 'the answer does not give the name back');
  }
  const viewer = await world.open(`${manifold.url}/?open=script`);
  await viewer.plays('script');
  for (const [id, name] of Object.entries(names)) {
    const row = viewer.page.locator(`[data-open="${id}"]`);
    await row.waitFor();
    assert.ok((await row.textContent()).includes(name), `${id} is shown as text`);
    const box = await row.boundingBox();
    assert.ok(box.height < 120 && box.width < 400, `${id} stays within its row: ${JSON.stringify(box)}`);
  }
  assert.ok((await viewer.page.locator('[data-camera="script"]').textContent()).includes(names.script));
  assert.equal(await viewer.page.evaluate(() => window.owned), undefined);
  assert.deepEqual(viewer.errors, []);
});

scenario('cameras that nobody watches are asked how they are', async (world) => {
  const camera = await world.camera({ auth: 'digest', password: CANARY });
  const manifold = await world.manifold({ cameras, park: { probe_interval: '5s' } });
  const viewer = await world.open(manifold.url);
  await add(manifold, { id: 'right', url: camera.url('/h264') });
  await add(manifold, { id: 'wrong', url: camera.url('/h264', `not-${CANARY}`) });
  await add(manifold, { id: 'gone', url: 'rtsp://127.0.0.1:1/' });

  const status = async (id) => {
    const { status, probed_at, state, reason } = await manifold.camera(id);
    return probed_at && { status, state, reason };
  };
  const wrong = await until('the wrong password is known', () => status('wrong'));
  assert.deepEqual([wrong.status, wrong.state], ['ERROR', 'unauthorized']);
  assert.match(wrong.reason, /user name or password/);
  const right = await until('the right one is known', () => status('right'));
  assert.equal(right.status, 'ONLINE');
  const gone = await until('the one that is gone is known', () => status('gone'));
  assert.equal(gone.status, 'OFFLINE');
  const row = viewer.page.locator('[data-open="wrong"]');
  await until('the list says it', async () => /Password refused/.test(await row.innerText()), { show: () => row.innerText() });

  // A new password is tried at once, however long the wrong one is left in peace.
  await manifold.call('PUT', '/api/v1/cameras/wrong', { body: { url: camera.url('/h264') } });
  await until('the password is right', async () => (await status('wrong'))?.status === 'ONLINE');
  const counted = await manifold.metrics();
  for (const outcome of ['answered', 'unauthorized', 'unreachable']) {
    assert.match(counted, new RegExp(`manifold_probes_total\\{outcome="${outcome}"\\} [1-9]`));
  }
  await secretNowhere(manifold, viewer);
});

scenario('an operator hears of no source but his own', async (world) => {
  const sources = ['METRO', 'NAVY', 'TAXI'].map((id) => ({ id, name: id, name_ar: id, limit: 5 }));
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    sources,
    cameras: [{ id: 'secret-gate', source: 'NAVY', url: 'test://' }],
  });
  const operator = (ids) => ({
    authorization: `Bearer ${token('', 'omar', {
      video: { roomJoin: false, roomCreate: true },
      attributes: { role: 'operator', sources: ids },
    })}`,
  });
  const post = (ids, body) => manifold.call('POST', '/api/v1/cameras', { body, headers: operator(ids) });

  const added = await post('METRO', { id: 'mine', source: 'METRO', url: 'rtsp://192.0.2.1/' });
  assert.equal(added.status, 201, added.text);
  for (const source of ['NAVY', 'NOBODY']) {
    const refused = await post('METRO', { id: 'x', source, url: 'rtsp://192.0.2.1/' });
    assert.equal(refused.status, 400);
    assert.equal(refused.json.problems[0].sentence, 'there is no such source; use METRO');
  }
  const two = await post('METRO,TAXI', { id: 'x', source: 'NAVY', url: 'rtsp://192.0.2.1/' });
  assert.equal(two.json.problems[0].sentence, 'there is no such source; the sources are METRO, TAXI');
  const moved = await manifold.call('PUT', '/api/v1/cameras/mine', { body: { source: 'NAVY' }, headers: operator('METRO') });
  assert.equal(moved.json.problems[0].sentence, 'there is no such source; use METRO');
  const list = JSON.stringify([{ id: 'secret-gate', source: 'METRO', url: 'rtsp://192.0.2.1/' }]);
  const taken = await importList(manifold, 'application/json', list, '?existing=change', operator('METRO'));
  assert.equal(taken.status, 400);
  assert.ok(!taken.text.includes('NAVY'), taken.text);

  // What he changed he reads in the trail, and nothing of others.
  await until('the change is written', async () => {
    const { json } = await manifold.call('GET', '/api/v1/audit?kind=changed', { headers: operator('METRO') });
    return json.rows.length === 1 && json.rows[0].actor === 'omar' && json.rows[0].object === 'mine';
  });
  const { json } = await manifold.call('GET', '/api/v1/audit', { headers: operator('TAXI') });
  assert.deepEqual(json.rows, []);
});

scenario('a park of 10,000 cameras is imported at once, kept, and at hand on the page', async (world) => {
  const manifold = await world.manifold({ cameras, log: { level: 'info' } });
  const viewer = await world.open(manifold.url);
  const { page } = viewer;
  await page.waitForSelector('[data-open="still-here"]');
  const number = (n) => String(n).padStart(5, '0');
  const rows = Array.from({ length: 10_000 }, (_, n) => ({
    id: `cam-${number(n)}`,
    name: `Camera ${number(n)}`,
    name_ar: `كاميرا ${number(n)}`,
    source: 'TEST',
    url: n === 7_777 ? 'test://' : `rtsp://admin:${CANARY}@192.0.2.1/${n}`,
  }));

  const full = await importList(manifold, 'text/csv', csv(rows));
  assert.equal(full.status, 409, 'with the one that is there they are one too many');
  assert.match(full.json.detail, /10000 cameras at most/);
  const done = await importList(manifold, 'text/csv', csv(rows.slice(0, 9_999)));
  assert.deepEqual([done.status, done.json], [200, { added: 9_999, changed: 0 }], done.text);

  const health = await command('health --json', { url: manifold.url });
  assert.ok(health.json.details.some((line) => /^cameras: \d+ of 10000 live/.test(line)), health.text);
  const look = await command('top --once --json', { url: manifold.url });
  assert.equal(look.json.cameras.length, 10_000, 'commands tell of all of them, not of a page');

  const count = page.locator('.filter-count');
  await until('the page has them all', async () => /^10[,.]?000 cameras/.test(await count.innerText()), {
    within: 60_000,
    show: () => count.innerText(),
  });
  const drawn = () => page.locator('[data-open]').count();
  assert.ok((await drawn()) < 300, `${await drawn()} rows are drawn`);

  // To the end and back with the keyboard.
  await page.locator('[data-open="cam-00000"]').focus();
  await page.keyboard.press('End');
  await until('the last row has the focus', () => focused(page, 'still-here'));
  await page.keyboard.press('ArrowUp');
  await until('the row above has it', () => focused(page, 'cam-09998'));
  assert.ok((await drawn()) < 300, `${await drawn()} rows are drawn`);
  const place = await page.locator('[role="listitem"]:has([data-open="cam-09998"])').getAttribute('aria-posinset');
  assert.equal(place, '9999');
  await page.keyboard.press('Home');
  await until('the first row has it', () => focused(page, 'cam-00000'));

  // What is scrolled to is drawn, and a search finds each of them.
  await page.locator('.camera-rows').evaluate((list) => list.scrollTo(0, list.scrollHeight / 2));
  await until('the middle is drawn', () =>
    page.evaluate(() => {
      const list = document.querySelector('.camera-rows').getBoundingClientRect();
      const there = document.elementFromPoint(list.x + list.width / 2, list.y + list.height / 2);
      const found = there?.closest('[data-open]')?.dataset.open ?? '';
      return found > 'cam-03000' && found < 'cam-07000';
    }),
  );
  await page.locator('#camera-search').fill('camera 07777');
  await until('one is found', async () => (await count.innerText()) === '1 camera');
  await page.keyboard.press('Enter');
  await viewer.plays('cam-07777');

  await manifold.restart();
  assert.equal((await manifold.get('/api/v1/cameras?limit=1')).total, 10_000);
  const found = await manifold.get('/api/v1/audit?kind=changed&camera=cam-09998');
  assert.deepEqual(found.rows.map((row) => row.action), ['camera_added']);
  assert.match(await manifold.metrics(), /manifold_audit_rows_lost_total 0/);
  assert.deepEqual(viewer.errors, []);
});

scenario('who changed what is in the trail, by query, as CSV and in the chain, without secrets', async (world) => {
  const config = {
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    cameras: [{ id: 'gate', url: 'test://', close_after: '60s' }, { id: 'encoder', url: `whip://${CANARY}-stream-key-of-32-letters` }],
  };
  const manifold = await world.manifold(config);
  const grants = (name, video) => ({ headers: { authorization: `Bearer ${token('', name, { video })}` } });
  const admin = grants('ada', { roomJoin: false, roomAdmin: true });
  const act = async (method, path, body, expected) => {
    const answer = await manifold.call(method, path, { body, ...admin });
    assert.equal(answer.status, expected, `${method} ${path}: ${answer.text}`);
    return answer.json;
  };
  await act('POST', '/api/v1/cameras', { id: 'door', source: 'TEST', url: `rtsp://admin:${CANARY}@192.0.2.1/a` }, 201);
  await act('PUT', '/api/v1/cameras/door', { url: `rtsp://admin:${CANARY}2@192.0.2.1/a`, name: 'Door' }, 200);
  const wall = await act('POST', '/api/v1/layouts', { name: '=1+1', tiles: [{ camera_id: 'door' }] }, 201);
  await act('PUT', '/api/v1/sources/TEST/limit', { limit: 7 }, 200);
  const { reservation_id: id } = await act('POST', '/api/v1/stream/reserve', { camera_id: 'gate', user_id: 'amal' }, 200);
  await act('DELETE', `/rooms/camera_gate/participants/viewer_${id}`, undefined, 200);
  await act('POST', '/api/v1/reset', { camera_id: 'gate' }, 200);
  await act('POST', '/api/v1/cameras/encoder/stream-key', undefined, 201);
  await act('DELETE', `/api/v1/layouts/${wall.id}`, undefined, 204);
  await act('DELETE', '/api/v1/cameras/door', undefined, 200);
  await act('PUT', '/api/v1/cameras/nobody', { name: 'x' }, 404);
  const path = manifold.file('manifold.toml');
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(`${KEY.id} =`, `second = "${CANARY}-of-the-second-key-with-32-characters"\n${KEY.id} =`));
  process.kill(manifold.pid, 'SIGHUP');
  await until('the new key is in the trail', async () => {
    const { json } = await manifold.call('GET', '/api/v1/audit?kind=changed', admin);
    return json.rows.some((row) => row.action === 'key_added');
  });

  const asked = { url: manifold.url, token: admin.headers.authorization.slice('Bearer '.length) };
  const { json, code, text: said } = await command('audit query --kind changed --json', asked);
  assert.equal(code, 0, said);
  assert.deepEqual(
    json.rows.map(({ actor, action, object, source, reason }) => [actor, action, object, source, reason]),
    [
      ['ada', 'camera_added', 'door', 'TEST', 'rtsp://192.0.2.1/a'],
      ['ada', 'camera_changed', 'door', 'TEST', 'name, url: user name, password or key'],
      ['ada', 'layout_added', wall.id, '', '=1+1, of ada, 1 camera'],
      ['ada', 'limit_changed', 'TEST', 'TEST', 'to 7'],
      ['ada', 'viewer_sent_away', id, 'TEST', 'amal from camera gate; the token is revoked'],
      ['ada', 'reset', 'gate', 'TEST', 'reservations ended: 0, pullers stopped: 1'],
      ['ada', 'stream_key_changed', 'encoder', 'TEST', ''],
      ['ada', 'layout_deleted', wall.id, '', '=1+1, of ada, 1 camera'],
      ['ada', 'camera_deleted', 'door', 'TEST', 'rtsp://192.0.2.1/a'],
      ['the settings file', 'key_added', 'second', '', ''],
    ],
  );
  const shown = await command('audit query --kind changed --camera door', asked);
  assert.match(shown.out, /ada {2}camera_changed {2}door {2}\(name, url: user name, password or key\)/);
  const exported = await command('audit export --kind changed', asked);
  assert.match(exported.out, /,layout_added,/);
  assert.match(exported.out, /"'=1\+1, of ada, 1 camera"/, 'no spreadsheet runs the name of a wall');
  const verified = await command('audit verify', asked);
  assert.deepEqual([verified.code, /^whole: \d+ rows/.test(verified.out)], [0, true], verified.text);
  const data = await readFile(`${manifold.file('data')}/manifold.redb`, 'latin1');
  for (const place of [JSON.stringify(json), shown.text, exported.out, manifold.logs, data]) {
    assert.ok(!place.includes(CANARY), 'a secret is told');
  }
});

function add(manifold, camera) {
  return manifold.call('POST', '/api/v1/cameras', { body: { source: 'TEST', ...camera } });
}

function focused(page, id) {
  return page.evaluate((wanted) => document.activeElement?.dataset.open === wanted, id);
}

function importList(manifold, type, body, query = '', headers = {}) {
  return manifold.call('POST', `/api/v1/cameras/import${query}`, { body, headers: { ...headers, 'content-type': type } });
}

function csv(rows) {
  const cell = (text) => `"${text.replaceAll('"', '""')}"`;
  const columns = Object.keys(rows[0]);
  return [columns.join(','), ...rows.map((row) => columns.map((column) => cell(row[column])).join(','))].join('\r\n');
}

/** What tells one way of watching from another: the page's connections, and the server's viewers. */
async function connections(viewer, manifold) {
  const peers = await viewer.page.evaluate(() => window.testPeers.length);
  const { rooms } = await manifold.get('/rooms/camera_gate');
  return { peers, viewers: rooms[0].participants.filter((one) => !one.is_publisher).map((one) => one.identity) };
}

/** The rows of the audit trail about changes of a camera, when there are so many. */
async function changes(manifold, camera, count) {
  let rows;
  await until(
    `${count} changes are written`,
    async () => {
      ({ rows } = await manifold.get(`/api/v1/audit?kind=changed&camera=${camera}`));
      return rows.length >= count;
    },
    { show: () => rows },
  );
  return rows;
}

/** Looks for the password in all that manifold shows and keeps, plain and as the base64 of Basic. */
async function secretNowhere(manifold, viewer) {
  const paths = ['/api/v1/cameras?limit=1000', '/rooms', '/health', '/metrics', '/api/v1/audit', '/api/v1/stream/stats'];
  const places = await Promise.all(paths.map(async (path) => [path, (await manifold.call('GET', path)).text]));
  const bundle = await fetch(`${manifold.url}/api/v1/bundle`);
  assert.equal(bundle.status, 200);
  places.push(['the bundle', unpacked(Buffer.from(await bundle.arrayBuffer())).toString('latin1')]);
  const data = manifold.file('data');
  places.push(['the database', await readFile(`${data}/manifold.redb`, 'latin1')]);
  places.push(['the log', manifold.logs]);
  if (viewer) places.push(['the page', await viewer.page.content()]);
  const basic = Buffer.from(`admin:${CANARY}`).toString('base64');
  for (const [place, text] of places) {
    assert.ok(text.length > 0, `${place} says something`);
    for (const secret of [CANARY, basic]) assert.ok(!text.includes(secret), `the password is in ${place}`);
  }
}

/** A tar archive keeps its files as they are; only around it something is compressed. */
function unpacked(bytes) {
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
}
