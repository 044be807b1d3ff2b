// The voice relay's WebSocket, by a client written from the contract alone: every message, every wrong one,
// and more of everything than anybody needs. One sender is a Chromium; the rest are plain sockets.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { root } from '../harness/parts.mjs';
import { holdings } from '../harness/proc.mjs';
import { Socket } from '../harness/socket.mjs';
import { CardSite } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const NOBODY = 'stream_00000000-0000-4000-8000-000000000000';

const offer = (name) => {
  const sdp = readFileSync(join(root, 'sdp', `${name}.sdp`), 'utf8').replace(/\r?\n/g, '\r\n');
  return { type: 'webrtc_offer', offer: { type: 'offer', sdp } };
};

/** Clients end with their scenario. */
async function connect(world, manifold, options) {
  const socket = await Socket.open(manifold.url, options);
  world.after(() => socket.destroy());
  return socket;
}

for (const path of ['/ws', '/']) {
  scenario(`a client on ${path} is greeted, and asked and answered as the contract says`, async (world) => {
    const manifold = await world.manifold();
    const socket = await connect(world, manifold, { path });
    assert.equal(socket.status, 101);
    assert.deepEqual(await socket.of('available_streams'), { type: 'available_streams', streams: [] });

    socket.tell({ type: 'ping' });
    assert.deepEqual(await socket.of('pong'), { type: 'pong' });
    socket.tell({ type: 'local_ip', ip: '192.168.1.20' });
    socket.tell({ type: 'ice_candidate', candidate: { candidate: '', sdpMid: '0', sdpMLineIndex: 0 } });
    socket.tell({ type: 'get_available_streams' });
    assert.deepEqual(await socket.of('available_streams'), { type: 'available_streams', streams: [] });
    socket.tell({ type: 'start_receiving' });
    assert.deepEqual(await socket.of('error'), { type: 'error', message: 'No audio stream available' });
    socket.tell({ type: 'start_receiving', stream_id: NOBODY });
    assert.equal(await socket.error_(), 'No audio stream available');

    socket.tell({ type: 'start_sending' });
    const ready = await socket.of('sender_ready');
    assert.match(ready.connection_id, UUID);
    for (const microphone of ['chromium-microphone', 'aiortc-microphone']) {
      socket.tell(offer(microphone));
      const { answer } = await socket.of('webrtc_answer');
      assert.equal(answer.type, 'answer');
      assert.match(answer.sdp, /^a=candidate:.* typ host/m, 'all candidates are inside');
      assert.match(answer.sdp, /^a=recvonly/m);
    }
    socket.tell({ type: 'stop_stream' });
    await socket.settled();
    assert.deepEqual(socket.messages, [], 'nothing else was said');
    assert.deepEqual(await manifold.get('/stream/status'), { active_streams: [] });
  });
}

scenario('the page stays at / for who does not upgrade, and /ws says what it is', async (world) => {
  const manifold = await world.manifold();
  const page = await manifold.call('GET', '/');
  assert.equal(page.status, 200);
  const plain = await manifold.call('GET', '/ws');
  assert.equal(plain.status, 426);
  assert.match(plain.json.detail, /WebSocket/);
  for (const [headers, status] of [
    [{ 'sec-websocket-version': '8' }, 426],
    [{ 'sec-websocket-key': 'short' }, 400],
    [{ connection: 'keep-alive' }, 400],
  ]) {
    const refused = await connect(world, manifold, { headers });
    assert.equal(refused.status, status, JSON.stringify(headers));
  }
});

scenario('every wrong message has a clear error and is survived', async (world) => {
  const manifold = await world.manifold();
  const socket = await connect(world, manifold);
  const wrong = [
    [(s) => s.text('{'), /cannot be understood/],
    [(s) => s.text(''), /cannot be understood/],
    [(s) => s.text('[]'), /cannot be understood/],
    [(s) => s.text('null'), /cannot be understood/],
    [(s) => s.text('['.repeat(50_000)), /cannot be understood/],
    [(s) => s.tell({}), /`type`/],
    [(s) => s.tell({ type: 'dance' }), /dance/],
    [(s) => s.tell({ type: 7 }), /cannot be understood/],
    [(s) => s.tell({ type: 'webrtc_offer' }), /`offer`/],
    [(s) => s.tell({ type: 'webrtc_offer', offer: { type: 'offer' } }), /`sdp`/],
    [(s) => s.tell({ type: 'start_receiving', stream_id: 5 }), /cannot be understood/],
    [(s) => s.binary(Buffer.from('{"type":"ping"}')), /binary/],
    [(s) => s.text('x'.repeat(256 * 1024 + 1)), /longer than 256 KiB/],
    [(s) => s.text('x'.repeat(900_000)), /longer than 256 KiB/],
    [(s) => s.tell({ type: 'webrtc_offer', offer: { type: 'offer', sdp: 'v=0' } }), /start_sending before the offer/],
    [(s) => s.tell({ type: 'webrtc_answer', answer: { type: 'answer', sdp: 'v=0' } }), /no offer waits/],
    [(s) => s.tell({ type: 'stop_stream', stream_id: NOBODY }), /another connection/],
    [(s) => s.tell({ type: 'start_sending', stream_id: NOBODY }), /another connection/],
  ];
  for (const [send, words] of wrong) {
    send(socket);
    const message = await socket.error_();
    assert.match(message, /^Server error: /);
    assert.match(message, words);
    assert.ok(message.length < 300, 'the error is short');
  }
  socket.tell({ type: 'start_sending' });
  await socket.of('sender_ready');
  const { offer: { sdp } } = offer('chromium-microphone');
  const video = sdp.replace(/m=audio/g, 'm=video').replace(/opus\/48000\/2/g, 'H264/90000');
  for (const bad of ['', 'v=0', 'garbage', sdp.slice(0, 200), video, sdp.replace(/opus/gi, 'speex')]) {
    socket.tell({ type: 'webrtc_offer', offer: { type: 'offer', sdp: bad } });
    assert.match(await socket.error_(), /^Server error: .*offer/);
  }
  socket.tell({ type: 'start_sending' });
  await socket.of('sender_ready');
  socket.tell(offer('chromium-microphone'));
  await socket.of('webrtc_answer');
  const text = await manifold.metrics();
  assert.match(text, /^manifold_voice_messages_bad_total 14$/m);
});

scenario('ten megabytes are answered before the connection ends, and are not kept', async (world) => {
  const manifold = await world.manifold();
  const other = await connect(world, manifold);
  const before = (await holdings(manifold.pid)).residentKb;
  for (let round = 0; round < 5; round += 1) {
    const socket = await connect(world, manifold);
    socket.text(JSON.stringify({ type: 'ping', padding: 'x'.repeat(10_000_000) }));
    assert.match(await socket.error_(), /longer than 256 KiB/);
    assert.equal(await socket.end(), 1009);
    await other.settled();
  }
  const grown = (await holdings(manifold.pid)).residentKb - before;
  assert.ok(grown < 20_000, `${grown} KiB more`);
});

scenario('what is no WebSocket ends the connection that sent it and no other', async (world) => {
  const manifold = await world.manifold();
  const other = await connect(world, manifold);
  const garbage = [
    [(s) => s.raw(Buffer.from('GET / HTTP/1.1\r\n\r\n')), 1002],
    [(s) => s.raw(Buffer.from([0x81, 0x03, 1, 2, 3])), 1002],
    [(s) => s.raw(Buffer.alloc(500, 0xff)), 1002],
    [(s) => s.frame(1, Buffer.from([0xff, 0xfe, 0xfd])), 1007],
    [(s) => s.raw(Buffer.from([0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])), 1009],
  ];
  for (const [send, code] of garbage) {
    const socket = await connect(world, manifold);
    await socket.of('available_streams');
    send(socket);
    assert.equal(await socket.end(), code);
    await other.settled();
  }
  await until('they are forgotten', async () => (await manifold.get('/health')).connected_clients === 1);
});

scenario('a flood is told once and closed with 1008, and others are served', async (world) => {
  const manifold = await world.manifold();
  const other = await connect(world, manifold);
  for (const flood of [(s) => s.tell({ type: 'ping' }), (s) => s.text('{'), (s) => s.ping(), (s) => s.tell({ type: 'start_sending' })]) {
    const socket = await connect(world, manifold);
    for (let number = 0; number < 3_000; number += 1) flood(socket);
    assert.equal(await socket.end(), 1008);
    const told = socket.messages.filter(({ message }) => /too many messages/.test(message ?? ''));
    assert.equal(told.length, 1, JSON.stringify(told));
    await other.settled();
  }
  assert.match(await manifold.metrics(), /^manifold_voice_clients_flooding_total 4$/m);
});

scenario('the 51st client is told and closed with 1013; a thousand sockets of one address are bounded', async (world) => {
  const manifold = await world.manifold();
  const sockets = [];
  for (let number = 0; number < 50; number += 1) sockets.push(await connect(world, manifold));
  const late = await connect(world, manifold);
  assert.match(await late.error_(), /^Server error: all 50 places for clients are taken/);
  assert.equal(await late.end(), 1013);

  const crowd = await Promise.all(Array.from({ length: 1_000 }, () => connect(world, manifold).catch(() => null)));
  await until('each of them knows', () => crowd.every((one) => one === null || one.ended || one.closed || one.status === 503));
  const health = await manifold.get('/health');
  assert.equal(health.connected_clients, 50);
  await sockets[0].settled();
  sockets[1].close();
  await until('there is a place again', async () => (await manifold.get('/health')).connected_clients === 49);
  const next = await connect(world, manifold);
  await next.of('available_streams');
});

scenario('a client that vanishes without a word is forgotten; pings keep idle ones', async (world) => {
  const manifold = await world.manifold();
  const quiet = await connect(world, manifold);
  const gone = await connect(world, manifold);
  gone.answersPings = false;
  await until('the server pings', () => quiet.pings > 0, { within: 30_000 });
  await until('who answers no ping is gone', async () => (await manifold.get('/health')).connected_clients === 1, { within: 100_000 });
  await quiet.settled();
});

scenario('origins and a token keep out whom they shall', async (world) => {
  const site = 'https://home.example:8123';
  const open = await world.manifold();
  const pages = [
    ['http://homeassistant.local:8123', 101],
    ['http://192.168.1.4:8123', 101],
    ['https://evil.example', 403],
    ['http://203.0.113.9', 403],
  ];
  for (const [origin, status] of pages) {
    const page = await connect(world, open, { headers: { origin } });
    assert.equal(page.status, status, origin);
  }
  const headers = { origin: 'https://home.example.org', 'x-ingress-path': '/api/hassio_ingress/abc' };
  assert.equal((await connect(world, open, { headers })).status, 101, 'through ingress');

  const closed = await world.manifold({ voice: { allowed_origins: [site], token: 'a-long-secret' } });
  const tries = [
    [{ headers: { origin: site }, path: '/ws?token=a-long-secret' }, 101],
    [{ headers: { origin: site, authorization: 'Bearer a-long-secret' } }, 101],
    [{ path: '/ws?token=a-long-secret' }, 101],
    [{ headers: { origin: 'https://evil.example' }, path: '/ws?token=a-long-secret' }, 403],
    [{ headers: { origin: site } }, 401],
    [{ headers: { origin: site }, path: '/?token=wrong' }, 401],
  ];
  for (const [options, status] of tries) {
    const socket = await connect(world, closed, options);
    assert.equal(socket.status, status, JSON.stringify(options));
  }
  assert.equal((await closed.get('/voice/config')).token_required, true);
  assert.ok(!closed.logs.includes('a-long-secret'));

  const off = await world.manifold({ voice: { enabled: false } });
  assert.equal((await connect(world, off)).status, 404);
  assert.equal((await off.get('/voice/config')).enabled, false);
  assert.equal((await off.get('/health')).status, 'healthy');
});

scenario('receivers before and after a voice, what is wrong with answers, and the end, by their words', async (world) => {
  const manifold = await world.manifold();
  const [waiting, late, other] = [await connect(world, manifold), await connect(world, manifold), await connect(world, manifold)];
  waiting.tell({ type: 'start_receiving' });
  assert.equal(await waiting.error_(), 'No audio stream available');

  const page = await (await CardSite.start(world)).page();
  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(440);
  for (const socket of [waiting, late, other]) {
    assert.deepEqual(await socket.of('stream_available'), { type: 'stream_available', stream_id: stream });
  }
  const own = await waiting.of('webrtc_offer');
  assert.equal(own.offer.type, 'offer');
  assert.match(own.offer.sdp, /^a=candidate:.* typ host/m);
  assert.match(own.offer.sdp, /^a=setup:actpass/m);
  assert.match(own.offer.sdp, /^a=sendonly/m);
  assert.match(own.offer.sdp, /^a=rtpmap:111 opus\/48000\/2/m);

  late.tell({ type: 'start_receiving', stream_id: stream });
  await late.of('webrtc_offer');
  for (const sdp of ['', 'v=0', own.offer.sdp.slice(0, 100)]) {
    late.tell({ type: 'webrtc_answer', answer: { type: 'answer', sdp } });
    assert.match(await late.error_(), /^Server error: /);
    late.tell({ type: 'start_receiving' });
    await late.of('webrtc_offer');
  }
  for (const message of [{ type: 'stop_stream', stream_id: stream }, { type: 'start_sending', stream_id: stream }]) {
    other.tell(message);
    assert.match(await other.error_(), /another connection/);
  }
  const level = await other.of('audio_data');
  assert.equal(level.stream_id, stream);
  assert.ok(level.level >= 0 && level.level <= 1, `${level.level}`);
  assert.ok(Math.abs(level.timestamp - Date.now() / 1_000) < 10, `${level.timestamp}`);
  assert.deepEqual(await manifold.get('/stream/status'), { active_streams: [stream] });
  const metrics = await manifold.get('/metrics');
  assert.deepEqual([metrics.active_streams, metrics.active_connections, metrics.webrtc_available], [1, 4, true]);
  await until('bytes are counted', async () => (await manifold.get('/metrics')).total_audio_bytes > 0);

  await sender.send({ type: 'stop_stream' });
  for (const socket of [waiting, late]) {
    await socket.next('the word of the end', ({ message }) => message === 'Stream ended');
  }
  for (const socket of [waiting, late, other]) {
    assert.deepEqual(await socket.of('stream_ended'), { type: 'stream_ended', stream_id: stream });
  }
  other.tell({ type: 'get_available_streams' });
  await other.next('an empty list', ({ type, streams }) => type === 'available_streams' && streams.length === 0);
  for (const line of ['Setting up sender for connection', 'Received audio track from sender', 'Stored stream', 'Sent offer to receiver', 'No audio stream available for receiver', 'Audio track ended for', 'ICE connection state for sender']) {
    await until(`it is logged: ${line}`, () => manifold.logs.includes(line));
  }
});
