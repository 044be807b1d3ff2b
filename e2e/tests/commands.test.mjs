// The commands of operators against servers as they are met: by HTTPS, with a park of their own, a store, cameras
// that are wrong in every way; and resets.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';

import { freePort } from '../harness/camera.mjs';
import { putCertificate } from '../harness/certificates.mjs';
import { manifold as command } from '../harness/command.mjs';
import { Redis } from '../harness/redis.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const CANARY = 'canary-77c2-never-show-this-to-anybody-at-all';
const asks = (manifold) => (words, options) => command(words, { url: manifold.url, ...options });

/** Between two keyframes that are one and six seconds apart; a busy camera sends later, never earlier. */
const A_SECOND = '(0\\.[89]|1\\.[0-4]) s';
const SIX_SECONDS = '6\\.\\d s';

/** The findings of `doctor`, and how to look one up. */
async function doctor(run, words, options) {
  const found = await run(`doctor --json ${words}`, options);
  const about = (pattern) => {
    const all = found.json.findings.filter(({ sentence }) => pattern.test(sentence));
    assert.equal(all.length, 1, `${pattern}: ${JSON.stringify(found.json.findings, null, 1)}`);
    return all[0];
  };
  return { ...found, about };
}

scenario('commands ask by HTTPS: the own authority is found, another is given, and a stranger is not believed', async (world) => {
  const manifold = await world.manifold({ http: { https: '127.0.0.1:0' }, cameras: [{ id: 'cam-1', url: 'test://' }] });
  const elsewhere = world.file('elsewhere');
  mkdirSync(elsewhere);
  const url = manifold.https;
  const there = { url, cwd: elsewhere, env: { HOME: elsewhere, MANIFOLD__STORE__DATA_DIR: elsewhere } };
  const here = { url, cwd: world.folder };

  // In the folder of its settings.
  for (const words of ['health', 'top --once', 'why cam-1', 'doctor --no-cameras --config manifold.toml', 'bundle -o b.tar.gz']) {
    const well = await command(words, here);
    assert.ok([0, 1].includes(well.code) && !/not asked|no server/.test(well.text), `${words}: ${well.text}`);
  }
  assert.equal((await command('health', here)).code, 0);

  // Elsewhere nothing is known of it.
  const stranger = await command('health', there);
  assert.equal(stranger.code, 2);
  assert.match(stranger.err, /is not asked: its certificate is of an authority that this machine does not know; .*--ca FILE/);
  assert.equal(stranger.err.trim().split('\n').length, 1, 'one sentence');

  writeFileSync(`${elsewhere}/ca.crt`, await (await fetch(`${manifold.url}/ca.crt`)).text());
  assert.equal((await command('health --ca ca.crt', there)).code, 0);
  const reset = await command('reset --all --yes --ca ca.crt', there);
  assert.equal(reset.code, 0, reset.text);

  // The authority of somebody else, no authority, none there; a name that is not in the certificate.
  const other = { certificate: `${elsewhere}/other.crt`, key: `${elsewhere}/other.key` };
  await putCertificate(other, 'other.example');
  assert.match((await command('health --ca other.crt', there)).err, /authority that this machine does not know/);
  writeFileSync(`${elsewhere}/empty.crt`, 'none\n');
  assert.match((await command('health --ca empty.crt', there)).err, /holds no certificate of an authority/);
  const missing = await command('health --ca missing.crt', there);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /--ca missing\.crt cannot be read/);
  const misnamed = await command('health --ca ca.crt', { ...there, url: url.replace('127.0.0.1', '127.1.2.3') });
  assert.equal(misnamed.code, 2);
  assert.match(misnamed.err, /no server answers|other names/);

  // The other door.
  const plain = await command('health --ca ca.crt', { ...there, url: manifold.url.replace('http:', 'https:') });
  assert.equal(plain.code, 2);
  assert.match(plain.err, /no TLS is spoken there; ask it by http:/);
  const secure = await command('health', { ...there, url: url.replace('https:', 'http:') });
  assert.notEqual(secure.code, 0);
  assert.equal(secure.err.trim().split('\n').length, 1, secure.err);
});

scenario('a certificate for another name, and that of an authority itself, are not believed', async (world) => {
  const files = { certificate: world.file('server.crt'), key: world.file('server.key') };
  const make = (...more) =>
    execFileSync('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30'],
      ...['-subj', '/CN=cctv.example', '-out', files.certificate, '-keyout', files.key, ...more],
    ], { stdio: 'ignore' });
  const asked = async () => {
    const manifold = await world.manifold({ http: { https: '127.0.0.1:0', ...files } });
    return command('health --ca server.crt', { url: manifold.https, cwd: world.folder });
  };
  make('-addext', 'subjectAltName=DNS:cctv.example', '-addext', 'basicConstraints=critical,CA:FALSE');
  const misnamed = await asked();
  assert.equal(misnamed.code, 2);
  assert.match(misnamed.err, /is not asked: its certificate is for other names/);
  make('-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE');
  assert.equal((await asked()).code, 0);
  make('-addext', 'subjectAltName=IP:127.0.0.1');
  assert.match((await asked()).err, /is not asked: its certificate is that of an authority/);
});

scenario('doctor tells of every camera what is wrong with it', async (world) => {
  const [locked, open] = [await world.camera({ auth: 'digest' }), await world.camera({ gop: 90 })];
  const manifold = await world.manifold({
    cameras: [
      { id: 'right', url: locked.url('/h264') },
      { id: 'wrong-password', url: locked.url('/h264', CANARY) },
      { id: 'wrong-path', url: open.url('/nothing') },
      { id: 'b-frames', url: open.url('/h264hi') },
      { id: 'long', url: open.url('/h264') },
      { id: 'h265-sub', url: open.url('/h265'), sub_url: open.url('/small') },
      { id: 'h265', url: open.url('/h265') },
      { id: 'aac', url: locked.url('/h264aac') },
      { id: 'mjpeg', url: open.url('/mjpeg') },
      { id: 'off', url: `rtsp://127.0.0.1:${await freePort()}/a` },
    ],
  });
  const found = await doctor(asks(manifold), '--config manifold.toml', { cwd: world.folder });

  assert.equal(found.code, 1);
  assert.equal(found.about(/^camera right sends H264 640x360, no sound/).level, 'ok');
  assert.equal(found.about(/^camera wrong-password refuses the user name or password/).level, 'trouble');
  assert.match(found.about(/^camera wrong-path/).remedy, /path/);
  assert.match(found.about(/^camera b-frames sends B-frames/).remedy, /B-frames/);
  const long = found.about(/^camera long sends H264/);
  assert.deepEqual([long.level, new RegExp(` a keyframe every ${SIX_SECONDS} \\(90 frames\\)`).test(long.sentence)], ['note', true], long.sentence);
  assert.equal(found.about(/^camera h265-sub sends H265 /).part, 'camera');
  assert.match(found.about(/^camera h265-sub sends H\.265, which /).remedy, /shown instead/);
  assert.match(found.about(/^camera h265-sub \(sub\) sends H264 320x180/).sentence, /no sound/);
  assert.match(found.about(/^camera h265 sends H\.265, which /).remedy, /sub_url/);
  assert.equal(found.about(/^camera aac sends H264 640x360, opus/).level, 'ok');
  assert.match(found.about(/^camera mjpeg/).remedy, /H\.264/);
  assert.match(found.about(/^camera off at .* cannot be reached/).remedy, /power/);
  assert.ok(!found.text.includes(CANARY));

  // One of them, for its exit code.
  assert.equal((await asks(manifold)('doctor --camera right --config manifold.toml', { cwd: world.folder })).code, 0);
  const unknown = await asks(manifold)('doctor --camera nonsense --config manifold.toml', { cwd: world.folder });
  assert.equal(unknown.code, 1);
  assert.match(unknown.out, /there is no camera nonsense, neither in the settings nor at the server/);
});

scenario('doctor looks at the park that the server has, with a token of an operator', async (world) => {
  const [camera, long, once] = [await world.camera({ auth: 'digest' }), await world.camera({ gop: 90 }), await world.camera({ gop: 9_000 })];
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    park: { allow_loopback: true },
    cameras: [{ id: 'of-the-file', url: camera.url('/h264') }],
  });
  const admin = token('', 'ada', { video: { roomJoin: false, roomAdmin: true } });
  const headers = { authorization: `Bearer ${admin}` };
  const add = async (id, url) => {
    const body = { id, name: id, source: 'TEST', url };
    const answer = await manifold.call('POST', '/api/v1/cameras', { body, headers });
    assert.equal(answer.status, 201, answer.text);
  };
  await add('added', camera.url('/h264aac'));
  await add('added-long', long.url('/h264'));
  await add('added-once', once.url('/h264'));
  await add('added-wrong', camera.url('/h264', CANARY));
  await add('added-off', `rtsp://127.0.0.1:${await freePort()}/a`);
  // The file's camera leads elsewhere since.
  const changed = await manifold.call('PUT', '/api/v1/cameras/of-the-file', {
    body: { id: 'of-the-file', name: 'x', source: 'TEST', url: camera.url('/nothing') },
    headers,
  });
  assert.equal(changed.status, 200, changed.text);

  const run = asks(manifold);
  const found = await doctor(run, '--config manifold.toml', { cwd: world.folder, token: admin });
  assert.equal(found.code, 1);
  const sends = (camera, sound, interval) =>
    found.about(new RegExp(`^camera ${camera} sends H264 640x360, ${sound}, no B-frames, a keyframe every ${interval}, says the server`));
  assert.equal(sends('added', 'opus', A_SECOND).level, 'ok');
  const rare = sends('added-long', 'no sound', SIX_SECONDS);
  assert.deepEqual([rare.level, /I-frame interval/.test(rare.remedy)], ['note', true]);
  assert.equal(found.about(/^camera added-once sends H264 .*, says the server, and no second keyframe came in 1[2-9] s/).level, 'note');
  assert.match(found.about(/^camera added-wrong, says the server: .*password/).remedy, /password/);
  assert.match(found.about(/^camera added-off, says the server: .*cannot be reached/).remedy, /power/);
  assert.match(found.about(/^camera of-the-file, says the server: /).remedy, /path/);
  assert.ok(!found.text.includes(CANARY));
  await until('nothing is left reserved', async () => (await manifold.call('GET', '/api/v1/stream/stats', { headers })).json.active_streams === 0);

  const without = await doctor(run, '--remote');
  assert.equal(without.about(/^the server does not tell its cameras: /).level, 'note');
});

scenario('doctor looks at the store: version, latency, clock, memory, keys, and one that is not there', async (world) => {
  const redis = await Redis.start(world, ['--requirepass', 'correct-horse']);
  process.env.REDISCLI_AUTH = 'correct-horse';
  world.after(() => delete process.env.REDISCLI_AUTH);
  const url = `redis://:correct-horse@127.0.0.1:${redis.port}`;
  const settings = (store) => {
    writeFileSync(world.file('manifold.toml'), `listen = ["127.0.0.1:0"]\n[store]\nurl = "${store}"\n`);
    return { cwd: world.folder, url: `http://127.0.0.1:1` };
  };
  const look = (store = url) => doctor(command, '--no-cameras', settings(store));

  const well = await look();
  assert.match(well.about(/lets this machine in and answers within \d+\.\d ms$/).level, /ok|note/);
  assert.equal(well.about(/^the store is Redis \d+\.\d+/).level, 'ok');
  assert.equal(well.about(/^the store's clock and this machine's agree/).level, 'ok');
  assert.equal(well.about(/throws nothing away when memory is short/).level, 'ok');
  assert.equal(well.about(/^what is in the store's keys is what/).level, 'ok');

  await redis.cli('CONFIG', 'SET', 'maxmemory', '100mb');
  await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
  await redis.cli('SET', 'stream:leases', 'of somebody else');
  const odd = await look();
  assert.match(odd.about(/may throw leases away when it is full: maxmemory-policy is allkeys-lru/).remedy, /noeviction/);
  const key = odd.about(/^the key stream:leases in the store is a string, and ought to be a zset/);
  assert.deepEqual([key.level, odd.code], ['trouble', 1]);

  const wrong = await look(`redis://:${CANARY}@127.0.0.1:${redis.port}`);
  assert.match(wrong.about(/refuses user or password of `store\.url`/).level, /trouble/);
  assert.ok(!wrong.text.includes(CANARY) && !well.text.includes('correct-horse'));
  await redis.kill();
  assert.match((await look()).about(/^the store .* cannot be reached/).remedy, /start the store/);
});

scenario('a reset is one step: counted, audited, told to its viewers, and exact while others come', async (world) => {
  const redis = await Redis.start(world);
  const camera = await world.camera();
  const cameras = ['cam-1', 'cam-2'].map((id) => ({ id, url: camera.url('/h264'), close_after: '1h' }));
  const manifold = await world.manifold({ store: { url: redis.url }, cameras });
  const run = asks(manifold);
  const [watcher, other] = [await world.open(`${manifold.url}/?open=cam-1`), await world.open(`${manifold.url}/?open=cam-2`)];
  await watcher.plays('cam-1');
  await other.plays('cam-2');
  const places = await Promise.all(Array.from({ length: 20 }, () => manifold.reserve('cam-1')));
  const before = places.map(({ json }) => json.reservation_id);

  // Others come while it goes on.
  const coming = Array.from({ length: 20 }, () => manifold.reserve('cam-1'));
  const done = await run('reset --camera cam-1 --yes --json');
  const came = (await Promise.all(coming)).map(({ json }) => json.reservation_id);

  for (const id of before) assert.ok(done.json.reservations_ended.includes(id), 'each of those before');
  assert.equal(done.json.reservations_ended.length, new Set(done.json.reservations_ended).size);
  assert.deepEqual(done.json.pullers_stopped, ['cam-1']);
  const why = await manifold.get(`/api/v1/why/${before[0]}`);
  assert.match(why.sentence, /an operator reset the camera/);
  // Before they run out, since nobody comes to their places.
  const stayed = came.filter((id) => !done.json.reservations_ended.includes(id));
  const lives = async () => (await manifold.get('/api/v1/why/cam-1')).viewers.map((viewer) => viewer.reservation_id);
  const after = await lives();
  for (const id of stayed) assert.ok(after.includes(id), 'who came after it stays');
  await other.advances('cam-2');
  // Its page comes back by itself, with a reservation of its own.
  await watcher.plays('cam-1', 40_000);

  await until('the account is exact', async () => {
    const { source_counts: counts } = await manifold.stats();
    return counts.TEST === (await lives()).length + 1 && `${counts.TEST}` === (await redis.cli('GET', 'stream:count:TEST'));
  });

  const all = await run('reset --all --yes --json');
  assert.equal(all.code, 0, all.text);
  assert.deepEqual(all.json.pullers_stopped, ['cam-1', 'cam-2']);
  assert.match(await manifold.metrics(), /^manifold_resets_total 2$/m);
  const audit = await run('audit query --json');
  assert.match(audit.text, /reset/, audit.text);
});
