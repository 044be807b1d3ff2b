// Ways to the server other than UDP over IPv4: TCP, IPv6, a relay.

import assert from 'node:assert/strict';
import { connect } from 'node:net';

import { freePort } from '../harness/camera.mjs';
import { part } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const SYNTHETIC = [{ id: 'cam-1', url: 'test://' }];

scenario('where UDP is blocked the page plays over TCP', async (world) => {
  const link = await world.link({ no_udp: true });
  const manifold = await world.manifold({
    ...link.settings,
    cameras: SYNTHETIC,
  });
  const browser = await world.browser({ program: link.wrapper });

  const viewer = await world.open(`${manifold.urls[1]}/?open=cam-1`, { browser });

  await viewer.plays('cam-1', 40_000);
  const pair = await viewer.comesBy('cam-1', 'TCP', ({ protocol }) => protocol === 'tcp');
  assert.deepEqual([pair.remote.protocol, pair.remote.port], ['tcp', manifold.udp.port]);
  await viewer.advances('cam-1', 30);
  const metrics = await manifold.metrics();
  assert.match(metrics, /^manifold_tcp_connections [1-9]/m);
  assert.match(metrics, /^manifold_tcp_framing_errors_total 0$/m);
  assert.equal(value(metrics, 'manifold_send_drops_total'), 0);
});

scenario('a viewer on a thin TCP line goes without frames, the others with all of them', async (world) => {
  const link = await world.link({ no_udp: true });
  const manifold = await world.manifold({
    ...link.settings,
    cameras: SYNTHETIC,
  });
  const browser = await world.browser({ program: link.wrapper });
  const behind = await world.open(`${manifold.urls[1]}/?open=cam-1`, { browser });
  await behind.plays('cam-1', 40_000);
  const beside = await world.open(`${manifold.urls[1]}/?open=cam-1`);
  await beside.plays('cam-1');
  const start = await beside.inbound('cam-1');
  await beside.notesPictures('cam-1');

  await link.set({ rate_kbit: 60, queue_ms: 10_000 });

  await until('frames are skipped', async () => value(await manifold.metrics(), 'manifold_frames_skipped_total') > 30, {
    within: 40_000,
  });
  await beside.advances('cam-1', 30);
  const { video } = await beside.inbound('cam-1');
  assert.equal(video.packetsLost, start.video.packetsLost);
  assert.equal(await beside.missed('cam-1'), 0, 'every picture came to the one beside');
  assert.equal(value(await manifold.metrics(), 'manifold_send_drops_total'), 0, 'whole frames, never a part');

  await link.set({ rate_kbit: 0 });

  await behind.advances('cam-1', 30, 30_000);
});

scenario('a session over TCP ends with its connection', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);
  await viewer.watch('cam-1', json, { candidates: ' tcp ' });
  await viewer.advances('cam-1');
  await viewer.comesBy('cam-1', 'TCP', ({ protocol }) => protocol === 'tcp');

  await viewer.page.evaluate(() => window.testPeers[0].close());

  await until('its lease is gone', async () => (await manifold.stats()).active_streams === 0, { within: 5_000 });
  await until('its connection too', async () => value(await manifold.metrics(), 'manifold_tcp_connections') === 0);
});

scenario('a publisher without UDP publishes over TCP', async (world) => {
  const key = 'a-stream-key-of-the-browser-tests';
  const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: `whip://${key}` }] });
  const studio = await world.open(manifold.url);

  await studio.page.evaluate(publishByTcp, `${manifold.url}/whip/${key}`);

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  assert.equal(await studio.page.evaluate(publishingProtocol), 'tcp');
});

/** In the page: publishes a canvas, and takes only the answer's candidates for TCP. */
async function publishByTcp(url) {
  const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
  const context = canvas.getContext('2d');
  let number = 0;
  setInterval(() => {
    context.fillStyle = `hsl(${number++ % 360} 80% 50%)`;
    context.fillRect(0, 0, 320, 240);
  }, 66);
  const peer = (window.publishingPeer = new RTCPeerConnection());
  peer.addTransceiver(canvas.captureStream(15).getVideoTracks()[0], { direction: 'sendonly' });
  await peer.setLocalDescription();
  const headers = { 'content-type': 'application/sdp' };
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription.sdp });
  const sdp = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status} ${sdp}`);
  const lines = sdp.split('\r\n').filter((line) => !/^a=candidate:.* udp /.test(line));
  await peer.setRemoteDescription({ type: 'answer', sdp: lines.join('\r\n') });
}

async function publishingProtocol() {
  const stats = await window.publishingPeer.getStats();
  const [transport] = [...stats.values()].filter(({ type }) => type === 'transport');
  const pair = stats.get(transport.selectedCandidatePairId);
  return stats.get(pair.localCandidateId).protocol;
}

scenario('Chromium plays over IPv6, one port for both families', async (world) => {
  const manifold = await world.manifold({
    listen: ['127.0.0.1:0', '[::1]:0'],
    media: { udp: '[::]:0', advertise: ['::1', '127.0.0.1'] },
    cameras: SYNTHETIC,
  });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);

  await viewer.watch('v6', json, { candidates: ' ::1 ' });

  await viewer.advances('v6');
  await viewer.comesBy('v6', 'IPv6', ({ remote }) => remote.address === '::1');
  const second = await manifold.reserve('cam-1');
  await viewer.watch('v4', second.json, { candidates: ' 127.0.0.1 ' });
  await viewer.advances('v4');
});

scenario('a thousand connections of strangers are bounded, and nobody notices', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const { host, port } = manifold.tcp;
  const strangers = Array.from({ length: 1_000 }, () => connect(port, host).resume());
  for (const stranger of strangers) stranger.on('error', () => {});
  world.after(() => strangers.forEach((stranger) => stranger.destroy()));

  const figures = await until('all were let in or turned away', async () => {
    const { open, accepted, refused } = await connections(manifold);
    return refused > 0 && accepted + refused >= 1_000 ? { open, accepted, refused } : undefined;
  });
  assert.ok(figures.open <= 129, JSON.stringify(figures));
  assert.ok(figures.accepted >= 128, JSON.stringify(figures));

  await viewer.advances('cam-1', 30);
  // The page may have a connection of its own, which it leaves without a check since it plays over UDP.
  // It holds one of the 128 places and may be closed by either side; so who was not refused is counted.
  await until(
    'they are dropped',
    async () => {
      const { refused, dropped } = await connections(manifold);
      return refused + dropped >= 1_000 && strangers.every(({ destroyed }) => destroyed);
    },
    { within: 20_000 },
  );
});

/** What became of connections to the media port. */
async function connections(manifold) {
  const metrics = await manifold.metrics();
  const figure = (name) => value(metrics, `manifold_tcp_${name}`);
  return {
    open: figure('connections'),
    accepted: figure('connections_accepted_total'),
    refused: figure('connections_refused_total'),
    dropped: figure('strangers_dropped_total'),
  };
}

scenario('who speaks something else on the media port is dropped at once', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const { host, port } = manifold.tcp;
  const socket = connect(port, host);
  const closed = new Promise((resolve) => socket.on('close', resolve).on('error', () => {}));

  socket.write('GET / HTTP/1.1\r\nHost: manifold\r\n\r\n');

  await closed;
  await until('it is counted', async () => value(await manifold.metrics(), 'manifold_tcp_framing_errors_total') === 1);
});

scenario('a viewer that may only use a relay plays through TURN', async (world) => {
  const manifold = await withRelay(world);
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);

  await viewer.watch('relayed', json, { configuration: { iceServers: 'link', iceTransportPolicy: 'relay' } });

  await viewer.advances('relayed');
  const pair = await viewer.comesBy('relayed', 'the relay', ({ local }) => local.candidateType === 'relay');
  assert.equal(pair.local.relayProtocol, 'udp');
  assert.doesNotMatch(manifold.logs, new RegExp(SECRET));
});

scenario('the page plays through TURN at its first attempt', async (world) => {
  const manifold = await withRelay(world);
  const viewer = await world.open(manifold.url);
  await viewer.page.addInitScript(relayOnly);
  await viewer.page.goto(`${manifold.url}/?open=cam-1`);

  await viewer.plays('cam-1');

  const pair = await viewer.comesBy('cam-1', 'the relay', ({ local }) => local.candidateType === 'relay');
  assert.equal(pair.local.relayProtocol, 'udp');
  assert.match(await manifold.metrics(), /^manifold_http_requests_total\{route="\/whep\/\{camera\}",status="201"\} 1$/m);
});

/** In the page, before its own scripts. */
function relayOnly() {
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
    }
  };
}

const SECRET = 'a secret between coturn and manifold';

/** A manifold that tells of a TURN server. */
async function withRelay(world) {
  const port = await freePort();
  const turn = new Child('turnserver', part('turn'), turnArguments(port, SECRET), { log: world.file('turn.log') });
  world.own(turn);
  await turn.says(/Total General servers/);
  const servers = [{ urls: [`turn:127.0.0.1:${port}?transport=udp`], secret: SECRET, ttl: '10m' }];
  return world.manifold({ cameras: SYNTHETIC, 'media.turn': servers });
}

function turnArguments(port, secret) {
  const told = { 'listening-ip': '127.0.0.1', 'relay-ip': '127.0.0.1', 'listening-port': port, realm: 'manifold' };
  const values = Object.entries({ ...told, 'static-auth-secret': secret }).map(([name, value]) => `--${name}=${value}`);
  const flags = ['use-auth-secret', 'allow-loopback-peers', 'no-cli', 'no-tls', 'no-dtls', 'fingerprint'];
  return ['-n', '--log-file=stdout', '--pidfile=/dev/null', ...values, ...flags.map((name) => `--${name}`)];
}

scenario('an ICE restart changes the credentials and not the picture', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);
  const session = await viewer.watch('cam-1', json);
  const { last: before } = await viewer.advances('cam-1');
  await viewer.notesPictures('cam-1');

  const restarted = await viewer.page.evaluate(restartIce, session);

  assert.equal(restarted.status, 200, restarted.body);
  assert.notEqual(restarted.etag, session.etag);
  await viewer.advances('cam-1', 60);
  const { pair, video } = await viewer.inbound('cam-1');
  assert.ok(pair, 'a pair is selected again');
  assert.equal(video.packetsLost, 0);
  assert.equal(await viewer.missed('cam-1'), 0, 'every picture came');
  assert.ok(before.frame > 0);
  const late = await fetch(session.location, {
    method: 'PATCH',
    headers: { 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': session.etag },
    body: restarted.fragment,
  });
  assert.equal(late.status, 412, 'the old tag names the old ICE session');
});

/** In the page: RFC 9725 §4.3.3. */
async function restartIce({ sdp, location }) {
  const [peer] = window.testPeers;
  peer.restartIce();
  await peer.setLocalDescription();
  const ours = peer.localDescription.sdp.split('\r\n');
  const value = (lines, name) => lines.find((line) => line.startsWith(name));
  const media = ours.find((line) => line.startsWith('m='));
  const names = ['a=mid:', 'a=ice-ufrag:', 'a=ice-pwd:'];
  const fragment = [media, ...names.map((name) => value(ours, name)), ''].join('\r\n');
  const headers = { 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': '*' };
  const answer = await fetch(location, { method: 'PATCH', headers, body: fragment });
  const body = await answer.text();
  const theirs = body.split('\r\n');
  const renewed = sdp.split('\r\n').map((line) => {
    const name = ['a=ice-ufrag:', 'a=ice-pwd:'].find((name) => line.startsWith(name));
    return name ? value(theirs, name) : line;
  });
  if (answer.status === 200) await peer.setRemoteDescription({ type: 'answer', sdp: renewed.join('\r\n') });
  return { status: answer.status, etag: answer.headers.get('etag'), body, fragment };
}

/** A figure without labels. */
function value(metrics, name) {
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1]);
}
