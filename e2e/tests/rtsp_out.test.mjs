// RTSP out: recorders and players read the cameras that browsers watch, from the same frames.

import assert from 'node:assert/strict';

import { complaint, gstreamerPlays, probe, recorder, sizesOf, stripsOf } from '../harness/players.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

scenario('a browser and a recorder watch, and the camera is pulled once', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264pcma') }] });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');

  const file = world.file('recorded.mkv');
  const ffmpeg = recorder(world, 'recorder', `${manifold.rtsp}/cam-1`, file, { seconds: 5 });
  const both = await until('both are viewers', async () => {
    const shown = await manifold.camera('cam-1');
    return shown.viewer_count === 2 && shown;
  });
  assert.deepEqual([both.pullers, both.pulls_started], [1, 1]);
  assert.equal(await camera.connections(), 1, 'the camera itself sees one client');
  const { rooms } = await manifold.get('/rooms/camera_cam-1');
  const [{ participants }] = rooms;
  assert.equal(participants.filter(({ identity }) => identity.startsWith('viewer_')).length, 2);
  await viewer.advances('cam-1');

  assert.equal(await ffmpeg.ended, 0, ffmpeg.tail());
  await until('the lease ended with the connection', async () => {
    return (await manifold.camera('cam-1')).viewer_count === 1;
  });
  const codecs = (await probe(file)).map((stream) => stream.codec_name);
  assert.deepEqual(codecs, ['h264', 'pcm_alaw']);
  rising(await stripsOf(file, 640, 360), 20);
  const log = manifold.logs;
  assert.ok(log.includes('Reusing existing stream resources for additional viewer'));
});

scenario('a recording goes on when the camera restarts, with another resolution', async (world) => {
  const camera = await world.camera({ size: '640x360' });
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url('/h264') }] });
  const file = world.file('recorded.ts');
  const ffmpeg = recorder(world, 'recorder', `${manifold.rtsp}/cam-1`, file);
  await manifold.cameraIs('cam-1', 'live');
  await until('something is recorded', () => /frame= *[1-9]/.test(ffmpeg.output));

  await camera.kill();
  await until('the camera is down', async () => (await manifold.camera('cam-1')).status === 'OFFLINE');
  assert.equal((await manifold.camera('cam-1')).viewer_count, 1, 'the reader keeps its lease');
  await camera.start({ size: '960x540' });
  await manifold.cameraIs('cam-1', 'live', 45_000);
  const recorded = () => Number([...ffmpeg.output.matchAll(/frame= *(\d+)/g)].at(-1)[1]);
  const before = recorded();
  await until('the recording goes on', () => recorded() > before + 30, { within: 30_000 });

  assert.ok(ffmpeg.alive, ffmpeg.tail());
  ffmpeg.signal('SIGINT');
  await ffmpeg.ended;
  const sizes = await sizesOf(file);
  assert.deepEqual([...sizes], ['640x360', '960x540']);
});

scenario('GStreamer plays with a password, by Digest, and falls back to TCP by itself', async (world) => {
  const manifold = await world.manifold({
    cameras: [{ id: 'cam-1', url: 'test://' }],
    'rtsp.users': { recorder: 'correct-horse' },
  });
  const url = `${manifold.rtsp}/cam-1`;
  assert.equal(await gstreamerPlays(world, url, { user: 'recorder', password: 'correct-horse' }), 0);
  const account = { user: 'recorder', password: 'correct-horse', protocols: 'udp+tcp' };
  assert.equal(await gstreamerPlays(world, url, account), 0);
  assert.notEqual(await gstreamerPlays(world, url, { user: 'recorder', password: 'wrong-horse' }), 0);
  assert.ok(!manifold.logs.includes('correct-horse'), 'the password is in no log');
});

scenario('FFmpeg reads with a token, and with a password by Basic or Digest', async (world) => {
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    'rtsp.users': { recorder: 'correct-horse' },
    log: { level: 'trace' },
    cameras: [{ id: 'cam-1', url: 'test://' }],
  });
  const url = `${manifold.rtsp}/cam-1`;
  assert.match(await complaint(url), /401 Unauthorized/);
  const withPassword = url.replace('rtsp://', 'rtsp://recorder:correct-horse@');
  assert.deepEqual(names(await probe(withPassword)), ['h264', 'opus']);
  assert.match(await complaint(url.replace('rtsp://', 'rtsp://recorder:wrong@')), /401/);

  const admin = token('', 'dashboard', { video: { roomJoin: false, roomAdmin: true } });
  assert.deepEqual(names(await probe(`${url}?token=${admin}`)), ['h264', 'opus']);
  const reserved = await manifold.call('POST', '/api/v1/stream/reserve', {
    body: { camera_id: 'cam-1', user_id: 'x' },
    headers: { authorization: `Bearer ${admin}` },
  });
  const own = reserved.json.token;
  assert.deepEqual(names(await probe(`${url}?token=${own}`)), ['h264', 'opus']);
  const foreign = token('camera_cam-2', 'viewer_67e55044-10b1-426f-9247-bb680e5fe0c8');
  assert.match(await complaint(`${url}?token=${foreign}`), /403 Forbidden/);
  for (const secret of [admin, own, foreign, 'correct-horse']) {
    assert.ok(!manifold.logs.includes(secret), 'no secret is in the log');
  }
});

scenario('what is not there is said in the words of RTSP', async (world) => {
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: 'test://' },
      { id: 'cam-dead', url: 'rtsp://127.0.0.1:1/nothing' },
    ],
  });
  assert.match(await complaint(`${manifold.rtsp}/nope`), /404 Not Found/);
  assert.match(await complaint(`${manifold.rtsp}/cam-1/sub`), /404 Not Found/);
  assert.match(await complaint(`${manifold.rtsp}/cam-dead`), /503 Service Unavailable/);
  assert.match(await complaint(`${manifold.rtsp}/cam-1`, 'udp'), /461 Unsupported [Tt]ransport/);
  const metrics = await manifold.metrics();
  assert.match(metrics, /manifold_rtsp_requests_total\{result="refused"\} 4\n/);
});

const names = (streams) => streams.map((stream) => stream.codec_name);

/** Every picture reads well, and is newer than the one before. */
function rising(strips, least) {
  assert.ok(strips.length >= least, `${strips.length} pictures`);
  const frames = strips.map((strip) => strip?.frame);
  assert.ok(!frames.includes(undefined), `all strips read: ${frames}`);
  frames.forEach((frame, index) => {
    if (index > 0) assert.ok(frame > frames[index - 1], `they rise: ${frames}`);
  });
}
