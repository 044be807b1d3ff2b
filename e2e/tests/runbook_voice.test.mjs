// The voice runbook: its health check, what each of its issues becomes, and the lines that people look for in its
// log. Issues 1, 2, 3, 5, 6, 10, 13 and 14 as the commands answer them are in runbook.test.mjs; idle sockets and
// pings (9) also in voice_signal.test.mjs, losses that are concealed (7) in voice_loss.test.mjs.
//
// | of the runbook | scenario |
// |---|---|
// | 30-second health check, expected output | "the health check of 30 seconds" |
// | issue 4: ICE failed | "a sender whose network lets nothing through" |
// | issue 7: choppy | "a line that loses packets is told by one command" |
// | issue 8: latency | "how late a voice is, is measured where it is heard" |
// | issue 9: disconnects | "a socket that ends is named in the log, and pings keep a quiet one" |
// | issue 11: memory | "who left leaves nothing behind" |
// | issue 12: CPU | "a voice is encoded once however many play it" |
// | log patterns, information to collect | "the lines that people look for" |

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { manifold as command } from '../harness/command.mjs';
import { holdings } from '../harness/proc.mjs';
import { Socket } from '../harness/socket.mjs';
import { Speaker } from '../harness/speaker.mjs';
import { TalkPage, talkingBrowser, TONES } from '../harness/talk.mjs';
import { CardSite } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const asks = (manifold) => (words, options) => command(words, { url: manifold.url, ...options });
const why = async (run) => (await run('why voice --json')).json;

/** The last part of `stream_<id>`. */
const connectionOf = (stream) => stream.slice('stream_'.length);

scenario('the health check of 30 seconds: each of its six commands, and what is expected of it', async (world) => {
  const manifold = await world.manifold({ voice: {}, audio_listen: '127.0.0.1:0' });
  const page = await (await CardSite.start(world)).page();
  const [sender, receiver] = [await page.open('sender', manifold.url), await page.open('receiver', manifold.url)];
  assert.deepEqual(await (await fetch(`${manifold.audio}/stream/status`)).json(), { active_streams: [] });
  const stream = await sender.speak(440);
  await receiver.listen();
  await receiver.hears(440);

  const { uptime_seconds: uptime, ...health } = await manifold.get('/health');
  assert.ok(Number.isInteger(uptime));
  const wanted = { status: 'healthy', webrtc_available: true, audio_server_running: true, active_streams: 1, connected_clients: 2 };
  for (const [key, value] of Object.entries(wanted)) assert.equal(health[key], value, key);
  const metrics = await manifold.get('/metrics');
  assert.deepEqual([metrics.active_connections, metrics.active_streams, metrics.webrtc_available], [2, 1, true]);
  assert.ok(metrics.total_audio_bytes > 0);
  assert.deepEqual(await (await fetch(`${manifold.audio}/stream/status`)).json(), { active_streams: [stream] });
  const test = await Socket.open(manifold.url);
  test.tell({ type: 'get_available_streams' });
  assert.deepEqual((await test.of('available_streams')).streams, [stream]);

  // The same in one line.
  assert.equal((await asks(manifold)('health')).code, 0);
  assert.match((await asks(manifold)('why voice')).out, /^1 voice sent, heard by 1 receiver\n/);
});

scenario('a sender whose network lets nothing through is told by one command (issue 4)', async (world) => {
  const manifold = await world.manifold({ voice: { connection_timeout: '3s' }, cameras: [{ id: 'cam-1', url: 'test://' }] });
  const run = asks(manifold);
  const page = await world.open(`${manifold.url}/`);
  const offer = await page.page.evaluate(async () => {
    const peer = new RTCPeerConnection({ iceServers: [] });
    peer.addTransceiver('audio', { direction: 'sendonly' });
    return (await peer.createOffer()).sdp;
  });
  // It is answered, and never sends a packet: what a firewall makes of it.
  const socket = await Socket.open(manifold.url);
  socket.tell({ type: 'start_sending' });
  const { connection_id: id } = await socket.of('sender_ready');
  socket.tell({ type: 'webrtc_offer', offer: { type: 'offer', sdp: offer } });
  const { answer } = await socket.of('webrtc_answer');
  assert.match(answer.sdp, /^a=candidate:.* typ host/m, 'host candidates, all inside');
  assert.doesNotMatch(answer.sdp, /typ (srflx|relay)/, 'and no others');

  const stands = await why(run);
  assert.equal(stands.well, false);
  assert.match(stands.sentence, /ICE or DTLS is not done/);
  assert.match(stands.remedy, /open media\.udp in the firewall/);
  const log = `ICE connection state for sender ${id}: failed`;
  await until('the log has the words', () => manifold.logs.includes(log), { within: 20_000 });
  assert.match((await why(run)).sentence, /there is no sender/, 'it does not count any more');

  // Whether the port is reached at all.
  const { json } = await run('doctor --json --remote --no-cameras');
  assert.ok(json.findings.some(({ sentence, level }) => /^UDP candidate .* answers STUN/.test(sentence) && level === 'ok'), JSON.stringify(json));
});

scenario('a line that loses packets is told by one command (issue 7)', async (world) => {
  const link = await world.link();
  const manifold = await world.manifold(link.settings);
  const run = asks(manifold);
  const site = await CardSite.start(world, link.here);
  const far = await site.page(await world.browser({ program: link.wrapper }));
  const near = await site.page();
  const sender = await far.open('sender', manifold.urls[1]);
  const receiver = await near.open('receiver', manifold.urls[0]);
  await sender.speak(440);
  await receiver.listen();
  await receiver.hears(440);
  assert.equal((await run('top --once --json')).json.voice_loss_percent, 0);

  await link.set({ loss: 0.3, seed: 1 });

  await until('top tells', async () => (await run('top --once --json --interval 2s')).json.voice_loss_percent > 10);
  assert.match((await run('top --once --interval 2s')).out, /^voices 1 {2}receivers 1 .* lost on the way here [1-9]\d? %$/m);
  await receiver.hears(440);
});

scenario('how late a voice is, is measured where it is heard (issue 8)', async (world) => {
  const manifold = await world.manifold(TONES);
  const talker = await TalkPage.open(world, manifold.url, { browser: await talkingBrowser(world, 1000) });
  const listener = await TalkPage.open(world, manifold.url);
  await talker.hold();
  await listener.hears(1000);

  let text;
  const shown = async () => {
    text = await listener.page.locator('.voice-figures').innerText();
    return /Server to ear\s+\d+ ms/.test(text) && /Made up\s+\d/.test(text);
  };
  await until('the page tells', shown, { show: () => text });
});

scenario('a socket that ends is named in the log, and pings keep a quiet one (issue 9)', async (world) => {
  const manifold = await world.manifold();
  const socket = await Socket.open(manifold.url);
  socket.tell({ type: 'start_sending' });
  const { connection_id: id } = await socket.of('sender_ready');
  await until('the server pings twice', () => socket.pings >= 2, { within: 70_000 });
  socket.tell({ type: 'ping' });
  await socket.of('pong');
  assert.match((await asks(manifold)('why voice')).out, /1 WebSocket/);
  socket.destroy();
  await until('its end is told', () => manifold.logs.includes(`Cleaning up connection ${id}`));
  await until('it is not counted', async () => /0 WebSockets/.test((await asks(manifold)('why voice')).out));
});

scenario('who left leaves nothing behind (issue 11)', async (world) => {
  const manifold = await world.manifold({ voice: { max_connections: 200 }, log: { level: 'info' } });
  const run = asks(manifold);
  const crowd = async () => {
    const sockets = await Promise.all(Array.from({ length: 100 }, () => Socket.open(manifold.url)));
    for (const socket of sockets) socket.tell({ type: 'start_receiving' });
    for (const socket of sockets) await socket.of('error');
    for (const [index, socket] of sockets.entries()) (index % 2 ? socket.close() : socket.destroy());
    await until('all are gone', async () => (await manifold.get('/health')).connected_clients === 0);
  };
  await crowd();
  const before = await holdings(manifold.pid);
  const { memory_bytes: memory } = (await run('top --once --json')).json;

  for (let round = 0; round < 5; round += 1) await crowd();

  await until('as many files as before', async () => (await holdings(manifold.pid)).files <= before.files + 1);
  // Those that looked something up beside the others end after ten idle seconds.
  await until('as many threads', async () => (await holdings(manifold.pid)).threads <= before.threads + 1);
  const grown = (await run('top --once --json')).json.memory_bytes - memory;
  assert.ok(grown < 16e6, `${grown} bytes more after 500 joins`);
  assert.match((await run('why voice')).out, /0 WebSockets/);
});

scenario('a voice is encoded once however many play it, not at all for browsers, and clients are limited (issue 12)', async (world) => {
  const manifold = await world.manifold({ voice: { max_connections: 5 } });
  const run = asks(manifold);
  const page = await (await CardSite.start(world)).page();
  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(440);
  const receivers = [];
  for (const name of ['a', 'b', 'c']) receivers.push(await page.open(name, manifold.url));
  for (const receiver of receivers) await receiver.listen();
  for (const receiver of receivers) await receiver.hears(440);
  // How loud it is, is known without a decoder.
  await receivers[0].says({ type: 'audio_data', stream_id: stream });
  const look = async () => (await run('top --once --json')).json;
  const idle = await look();
  assert.deepEqual([idle.voices, idle.voice_receivers, idle.mp3_encoders], [1, 3, 0]);
  assert.ok(idle.cpu_percent >= 0);

  const players = await Promise.all([1, 2, 3].map(() => Speaker.play(world, `${manifold.url}/stream/latest.mp3`)));
  for (const player of players) await player.hears(440);
  const played = await look();
  assert.deepEqual([played.mp3_listeners, played.mp3_encoders], [3, 1]);

  // The sixth WebSocket finds no place, and reads why.
  const fifth = await Socket.open(manifold.url);
  const sixth = await Socket.open(manifold.url);
  assert.match(await sixth.error_(), /^Server error: .*5/);
  assert.equal(await sixth.end(), 1013);
  fifth.close();
});

scenario('the lines that people look for are in the log, and the bundle has what is to be sent in', async (world) => {
  const manifold = await world.manifold({ log: { level: 'info' } });
  const page = await (await CardSite.start(world)).page();
  const early = await page.open('early', manifold.url);
  await early.listen();
  await early.says({ type: 'error', message: 'No audio stream available' });
  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(440);
  await early.hears(440);
  await sender.send({ type: 'stop_stream' });
  await early.says({ type: 'stream_ended', stream_id: stream });
  for (const card of [early, sender]) await card.close();
  await until('nobody is there', async () => (await manifold.get('/health')).connected_clients === 0);

  const id = connectionOf(stream);
  const lines = [
    new RegExp(`Setting up sender for connection ${id}`),
    new RegExp(`Received audio track from sender ${id}`),
    new RegExp(`Stored stream ${stream} for sender ${id}`),
    new RegExp(`Sent offer to receiver [0-9a-f-]{36} for stream ${stream}`),
    /ICE connection state for receiver [0-9a-f-]{36}: connected/,
    new RegExp(`ICE connection state for sender ${id}: connected`),
    new RegExp(`Audio track ended for ${id}`),
    new RegExp(`Cleaning up connection ${id}`),
    /No audio stream available for receiver [0-9a-f-]{36}/,
  ];
  for (const line of lines) await until(`${line}`, () => line.test(manifold.logs));

  const made = await asks(manifold)('bundle -o voice.tar.gz', { cwd: world.folder });
  assert.equal(made.code, 0, made.text);
  const text = execFileSync('tar', ['xzOf', world.file('voice.tar.gz')], { encoding: 'utf8', maxBuffer: 64 << 20 });
  for (const part of [/"status": "healthy"/, /manifold_voices_begun_total 1/, /"active_streams": \[\]/, lines[2], /"addresses"/]) {
    assert.match(text, part);
  }
});
