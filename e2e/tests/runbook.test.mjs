// The runbooks of the systems that this one takes the place of, issue by issue: what their shell commands were
// for, one command answers, and what they repaired by hand does not happen.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import { statSync } from 'node:fs';

import { LEFT } from '../harness/browser.mjs';
import { freePort } from '../harness/camera.mjs';
import { manifold as command } from '../harness/command.mjs';
import { CardSite } from '../harness/voice.mjs';
import { holds, until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const CANARY = 'canary-91f4-never-show-this-to-anybody-at-all';

/** Runs a command against this server. */
const asks = (manifold) => (words, options) => command(words, { url: manifold.url, ...options });

/** What `why` says, and the state of one rung of its ladder. */
async function why(run, id) {
  const { json, code } = await run(`why ${id} --json`);
  const rung = (name) => json.ladder.find((rung) => rung.rung === name)?.state;
  return { ...json, code, rung };
}

scenario('camera issue 1: who is stuck on connecting is told the rung, and what to do', async (world) => {
  const camera = await world.camera();
  const closed = await freePort();
  const manifold = await world.manifold({
    sources: [{ id: 'TEST', name: 'Test', limit: 4 }],
    cameras: [
      { id: 'good', url: camera.url('/h264') },
      { id: 'closed', url: `rtsp://127.0.0.1:${closed}/h264` },
      { id: 'stuck', url: camera.url('/nokeyframe') },
    ],
  });
  const run = asks(manifold);

  // A: the camera is not pulled.
  const off = (await manifold.reserve('closed')).json.reservation_id;
  await manifold.cameraIs('closed', 'unreachable');
  const unreachable = await why(run, off);
  assert.equal(unreachable.code, 1);
  assert.equal(unreachable.rung('camera'), 'failed');
  assert.match(unreachable.sentence, /cannot be reached/);
  assert.match(unreachable.remedy, /RTSP port/);
  const ofCamera = await why(run, 'closed');
  assert.equal(ofCamera.viewers[0].reservation_id, off);

  // The camera sends, and no keyframe.
  const dark = (await manifold.reserve('stuck')).json.reservation_id;
  await manifold.cameraIs('stuck', 'no_keyframe', 40_000);
  const noKeyframe = await why(run, dark);
  assert.deepEqual([noKeyframe.rung('camera'), noKeyframe.rung('keyframe')], ['done', 'failed']);
  assert.match(noKeyframe.remedy, /I-frame interval/);

  // B: the token. It was never used; then one of another room is.
  const { json: place } = await manifold.reserve('good');
  await manifold.cameraIs('good', 'live');
  const unused = await why(run, place.reservation_id);
  assert.equal(unused.rung('token'), 'done');
  assert.match(unused.sentence, /no offer came with its token/);
  assert.match(unused.remedy, /\/whep\/good/);

  // C: the connection. An offer whose viewer never sends a check stands on ICE.
  const viewer = await world.open(`${manifold.url}/?open=good`);
  await viewer.plays('good');
  const watching = (await why(run, 'good')).viewers.find((viewer) => viewer.stage === 'playing');
  const plays = await why(run, watching.reservation_id);
  assert.equal(plays.code, 0, JSON.stringify(plays));
  for (const rung of ['quota', 'token', 'camera', 'keyframe', 'offer', 'ice', 'dtls', 'packet']) {
    assert.equal(plays.rung(rung), 'done', rung);
  }

  // The quota: the fifth finds no place, and is told whose it is.
  // Those of before, whom nobody comes for, may run out at any moment.
  await until('all places are taken, and why says so', async () => {
    if ((await manifold.reserve('good')).status !== 429) return false;
    const full = await why(run, 'good');
    return full.rung('quota') === 'failed' && /TEST uses 4 of 4/.test(full.sentence);
  });

  // A reservation that never was.
  const unknown = await run('why 00000000-0000-4000-8000-000000000000');
  assert.equal(unknown.code, 3);
  assert.match(unknown.err, /no camera and no reservation/);
});

scenario('camera issue 1: a viewer whose network lets nothing through stands on ICE', async (world) => {
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: 'test://' }] });
  const run = asks(manifold);
  const { json: place } = await manifold.reserve('cam-1');
  const page = await world.open(`${manifold.url}/`);
  const offer = await page.page.evaluate(async () => {
    const peer = new RTCPeerConnection();
    peer.addTransceiver('video', { direction: 'recvonly' });
    return (await peer.createOffer()).sdp;
  });
  const answer = await manifold.whep('cam-1', place.token, offer);
  assert.equal(answer.status, 201, answer.text);

  const stands = await why(run, place.reservation_id);

  assert.equal(stands.rung('ice'), 'waiting');
  assert.match(stands.sentence, /^ICE: no check has come/);
  assert.match(stands.remedy, /media\.udp/);
});

scenario('camera issues 2, 3, 6 and the multi-viewer checklist: two browsers, one puller, true counts', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), close_after: '1s' }],
  });
  const run = asks(manifold);
  const counted = async () => {
    const { camera_stats: rows } = await manifold.stats();
    return rows.find((row) => row.camera_id === 'cam-1')?.viewer_count;
  };

  // Single viewer.
  const first = await world.open(`${manifold.url}/?open=cam-1`);
  await first.plays('cam-1');
  assert.equal(await counted(), 1);

  // Multi viewer: the first plays on.
  const second = await world.open(`${manifold.url}/?open=cam-1`);
  await second.plays('cam-1');
  await first.advances('cam-1');
  assert.equal(await counted(), 2, 'the publisher is no viewer');
  const { viewers } = await why(run, 'cam-1');
  assert.equal(new Set(viewers.map((viewer) => viewer.reservation_id)).size, 2, 'no duplicate identity');
  const top = (await run('top --once --json')).json;
  assert.deepEqual([top.cameras[0].viewer_count, top.cameras[0].pullers], [2, 1]);
  assert.ok(top.packets_per_second > 0 && top.memory_bytes > 1e6, JSON.stringify(top));
  assert.equal(await camera.connections(), 1, 'one puller for both');

  // Cleanup: issues 4 and 5.
  await second.close();
  await until('one is counted', async () => (await counted()) === 1, LEFT);
  await first.advances('cam-1');
  await first.close();
  await until('nothing is left', async () => {
    const { json: health } = await run('health --json');
    return health.details.includes('cameras: 0 of 1 live, 0 pullers') && health.details.includes('reservations: 0');
  }, LEFT);
  await until('the camera is let go', async () => (await camera.connections()) === 0);
  assert.equal((await manifold.stats()).source_counts.TEST, 0, 'the counter went down');
  const idle = await why(run, 'cam-1');
  assert.equal(idle.code, 0);
  assert.match(idle.sentence, /nobody watches/);
  const ended = await why(run, viewers[0].reservation_id);
  assert.match(ended.sentence, /the reservation has ended: /);
  assert.match(ended.remedy, /^reserve again/);
});

scenario('camera issue 6: a hundred first viewers at once start one puller', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const run = asks(manifold);

  await Promise.all(Array.from({ length: 100 }, () => manifold.reserve('cam-1')));

  await manifold.cameraIs('cam-1', 'live');
  assert.equal((await why(run, 'cam-1')).viewers.length, 100);
  const { json: top } = await run('top --once --json');
  assert.deepEqual([top.cameras[0].pullers, top.cameras[0].pulls_started], [1, 1]);
  assert.equal(await camera.connections(), 1);
});

scenario('the resets: one camera, then everything, once it is meant', async (world) => {
  const camera = await world.camera();
  const cameras = ['cam-1', 'cam-2'].map((id) => ({ id, url: camera.url('/h264'), close_after: '1h' }));
  const manifold = await world.manifold({ cameras });
  const run = asks(manifold);
  const viewer = await world.open(`${manifold.url}/?open=cam-2`);
  await viewer.plays('cam-2');
  const { json: place } = await manifold.reserve('cam-1');
  await manifold.cameraIs('cam-1', 'live');

  const asked = await run('reset --camera cam-1');
  assert.equal(asked.code, 1);
  assert.match(asked.err, /--yes/);
  assert.equal((await manifold.stats()).active_streams, 2, 'nothing was ended');

  const one = await run('reset --camera cam-1 --yes --json');
  assert.equal(one.code, 0, one.text);
  assert.deepEqual(one.json.reservations_ended, [place.reservation_id]);
  assert.deepEqual(one.json.pullers_stopped, ['cam-1']);
  assert.equal((await manifold.camera('cam-1')).pullers, 0);
  await viewer.advances('cam-2');

  // The page at cam-2 comes back by itself.
  const pulled = camera.connectionsEver();
  const all = await run('reset --all --yes');
  assert.equal(all.code, 0, all.text);
  assert.match(all.out, /stopped the puller of cam-2/);
  assert.match(all.out, /left: 0 reservations, 0 pullers/);
  await until('the cameras are let go', () => camera.connectionsEnded() >= pulled);
  // Reopen cameras from the dashboard, the runbook says.
  const again = await world.open(`${manifold.url}/?open=cam-1`);
  await again.plays('cam-1');

  const unknown = await run('reset --camera nonsense --yes');
  assert.equal(unknown.code, 3);
  assert.match(unknown.err, /there is no camera nonsense/);
  assert.equal((await run('reset --yes')).code, 2, 'what is reset must be said');
});

scenario('the health check: well, degraded, refused, not there', async (world) => {
  const closed = await freePort();
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: `rtsp://127.0.0.1:${closed}/a` }, { id: 'cam-2', url: 'test://' }],
  });
  const run = asks(manifold);

  const well = await run('health');
  assert.equal(well.code, 0, well.text);
  assert.match(well.out, /^ok: /);
  assert.match(well.out, /TEST: 0 of 500/);

  await manifold.reserve('cam-1');
  await manifold.cameraIs('cam-1', 'unreachable');
  const degraded = await run('health --json');
  assert.equal(degraded.code, 1);
  assert.equal(degraded.json.status, 'degraded');
  assert.match(degraded.json.troubles[0], /cam-1 is watched and gives no picture/);

  await manifold.child.stop();
  const gone = await run('health');
  assert.equal(gone.code, 2);
  assert.equal(gone.err.trim().split('\n').length, 1, 'one sentence');
  assert.match(gone.err, /no server answers at .*--url/);
});

scenario('with keys, commands want a token of an admin', async (world) => {
  const secret = 'a-secret-of-at-least-32-characters!!';
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { devkey: secret },
    cameras: [{ id: 'cam-1', url: 'test://' }],
  });
  const run = asks(manifold);
  for (const words of ['why cam-1', 'reset --all --yes', 'top --once', 'bundle -o /dev/null']) {
    const refused = await run(words, { cwd: world.folder });
    assert.equal(refused.code, 3, `${words}: ${refused.text}`);
    assert.match(refused.err, /MANIFOLD_TOKEN/, words);
  }
  assert.equal((await run('health')).code, 0, 'that it lives is no secret');
});

scenario('doctor names the camera that is wrong, tries the media port, and finds a port that is taken', async (world) => {
  const camera = await world.camera({ auth: 'digest', gop: 150 });
  const url = (path, password) => camera.url(path, password);
  const manifold = await world.manifold({
    cameras: [
      { id: 'good', url: url('/h264') },
      { id: 'wrong-password', url: url('/h264', CANARY) },
      { id: 'b-frames', url: url('/h264hi') },
    ],
  });
  const run = asks(manifold);

  const found = await run('doctor --json --config manifold.toml', { cwd: world.folder });

  assert.equal(found.code, 1, found.text);
  const about = (pattern) => found.json.findings.find(({ sentence }) => pattern.test(sentence));
  assert.equal(about(/^UDP candidate .* answers STUN/).level, 'ok');
  assert.equal(about(/^TCP candidate .* answers STUN/).level, 'ok');
  assert.match(about(/^camera good sends H264/).sentence, /a keyframe every (9\.[5-9]|1\d\.\d) s \(150 frames\)/);
  assert.equal(about(/^camera good/).level, 'note');
  assert.equal(about(/^camera wrong-password refuses the user name or password/).level, 'trouble');
  assert.match(about(/^camera b-frames sends B-frames/).remedy, /B-frames/);
  assert.ok(about(/clock and this machine's agree/));
  assert.ok(!found.text.includes(CANARY), 'a password is not shown');
  assert.ok(found.json.findings.every(({ level, remedy }) => level === 'ok' || remedy), 'each has its remedy');
  await until('the reservation of the check is gone', async () => (await manifold.stats()).active_streams === 0);

  // Without a server, and with another program on its port.
  await manifold.child.stop();
  const other = createServer();
  await new Promise((listening) => other.listen(0, '127.0.0.1', listening));
  world.after(() => other.close());
  const listen = `127.0.0.1:${other.address().port}`;
  const alone = await run('doctor --no-cameras', { cwd: world.folder, env: { MANIFOLD__LISTEN: listen } });
  assert.equal(alone.code, 1, alone.text);
  const holder = new RegExp(`port ${listen} \\(listen\\) is taken by \\S+ \\(process ${process.pid}\\)`);
  assert.match(alone.out, holder);
  assert.match(alone.out, /-> stop that program, or change `listen`/);
});

scenario('the debug bundle has the state, and none of the secrets', async (world) => {
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: 'test://' },
      { id: 'cam-2', url: `rtsp://${CANARY}:${CANARY}@127.0.0.1:1/live/${CANARY}` },
    ],
    voice: { token: CANARY },
    'media.turn': [{ urls: ['turn:127.0.0.1:3478'], secret: CANARY }],
  });
  const run = asks(manifold);
  await manifold.reserve('cam-1');
  await manifold.reserve('cam-2');
  await manifold.cameraIs('cam-2', 'unreachable');

  const made = await run('bundle -o bundle.tar.gz --config manifold.toml', { cwd: world.folder });

  assert.equal(made.code, 0, made.text);
  const file = world.file('bundle.tar.gz');
  assert.equal(statSync(file).mode & 0o777, 0o600, 'for its owner alone');
  const list = execFileSync('tar', ['tzf', file], { encoding: 'utf8' }).split('\n');
  const wanted = ['settings.json', 'log.txt', 'cameras.json', 'stats.json', 'rooms.json', 'metrics.txt', 'doctor.json', 'health.json'];
  for (const name of wanted) assert.ok(list.includes(`manifold-bundle/${name}`), name);
  const all = execFileSync('tar', ['xzOf', file], { encoding: 'utf8', maxBuffer: 64 << 20 });
  assert.ok(!all.includes('canary'), `a secret is in the bundle: ${all.slice(all.indexOf('canary') - 200).slice(0, 400)}`);
  assert.match(all, /Creating new stream resources \(first viewer\)/);
  assert.match(all, /"host": "127\.0\.0\.1"/);
});

scenario('voice issues 1, 2, 3, 6, 10 and 14: who is not heard is told why', async (world) => {
  const manifold = await world.manifold({ voice: { max_connections: 50 } });
  const run = asks(manifold);

  // 14: the health check. 1: no stream is available.
  assert.equal((await run('health')).code, 0);
  const nobody = await why(run, 'voice');
  assert.equal(nobody.code, 1);
  assert.match(nobody.sentence, /no sender/);

  // 2: sender first.
  const page = await (await CardSite.start(world)).page();
  const sender = await page.open('sender', manifold.url);
  await sender.speak(440);
  await until('the voice is there', async () => /no receiver/.test((await why(run, 'voice')).sentence));

  // 10: each of several receivers hears it.
  const receivers = [];
  for (const name of ['a', 'b', 'c']) receivers.push(await page.open(name, manifold.url));
  for (const receiver of receivers) await receiver.listen();
  for (const receiver of receivers) await receiver.hears(440);
  const well = await why(run, 'voice');
  assert.equal(well.code, 0, JSON.stringify(well));
  assert.match(well.sentence, /^1 voice sent, heard by 3 receivers/);

  // 6: connected, and silent: the microphone is muted.
  const mute = (enabled) =>
    page.page.evaluate((enabled) => {
      for (const { track } of window.cards.all.sender.sender.getSenders()) track.enabled = enabled;
    }, enabled);
  await mute(false);
  await until('the silence is told', async () => /silent: stream_/.test((await why(run, 'voice')).sentence));
  await mute(true);
  await until('it is well again', async () => (await why(run, 'voice')).well);

  // 11: nothing is kept of who left.
  for (const card of [...receivers, sender]) await card.close();
  await until('nobody is there', async () => /0 WebSockets/.test((await run('why voice')).out));

  // 3: the connection is refused, since nobody is there.
  await manifold.child.stop();
  const gone = await run('why voice');
  assert.equal(gone.code, 2);
  assert.match(gone.err, /no server answers/);
});

scenario('voice issues 5 and 13: a server that does not start says why in one line, and doctor before it', async (world) => {
  const other = createServer();
  await new Promise((listening) => other.listen(0, '127.0.0.1', listening));
  world.after(() => other.close());
  const taken = `127.0.0.1:${other.address().port}`;
  const env = { MANIFOLD__AUDIO_LISTEN: 'off', MANIFOLD__HTTP__HTTPS: 'off', MANIFOLD__RTSP__LISTEN: '' };

  const started = await command(`serve --listen ${taken} --udp 127.0.0.1:0`, { cwd: world.folder, env });

  assert.equal(started.code, 1);
  assert.match(started.err, new RegExp(`^manifold: port ${taken} \\(listen.*\\) is in use; stop the other program`, 'm'));
  const wrong = await command('doctor --no-cameras', {
    cwd: world.folder,
    env: { ...env, MANIFOLD__QUOTA__TOTAL: 'many', MANIFOLD_URL: `http://127.0.0.1:${await freePort()}` },
  });
  assert.equal(wrong.code, 1);
  assert.match(wrong.out, /trouble +settings .*quota\.total/);
});

scenario('voice issue 9: a WebSocket that is quiet for a while stays', async (world) => {
  const manifold = await world.manifold();
  const page = await (await CardSite.start(world)).page();
  const card = await page.open('quiet', manifold.url);
  await card.says({ type: 'available_streams' });
  await holds('it is connected', async () => (await manifold.get('/health')).connected_clients === 1, 5_000);
  await card.send({ type: 'ping' });
  await card.says({ type: 'pong' });
});
