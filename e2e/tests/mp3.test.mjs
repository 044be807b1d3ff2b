// Voices as MP3, for speakers that know no WebRTC: Chromium speaks, FFmpeg hears.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { connect } from 'node:net';

import { Speaker } from '../harness/speaker.mjs';
import { CardSite } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

scenario('a speaker plays the newest voice, silence between, and each voice by its id', async (world) => {
  const { manifold, page } = await relay(world);
  const latest = await Speaker.play(world, `${manifold.url}/stream/latest.mp3`);
  assert.equal(latest.response.headers['content-type'], 'audio/mpeg');
  await latest.hearsNothing();

  const low = await page.open('low', manifold.url);
  const stream = await low.speak(440);
  await latest.hears(440);
  const url = `${manifold.url}/stream/${stream}.mp3`;
  const byId = await Promise.all([1, 2, 3].map(() => Speaker.play(world, url)));
  for (const speaker of byId) await speaker.hears(440);
  assert.deepEqual(await figures(manifold), { listeners: 4, encoders: 1 });

  const high = await page.open('high', manifold.url);
  await high.speak(880);
  await latest.hears(880);
  await high.send({ type: 'stop_stream' });
  await latest.hears(440);

  await low.send({ type: 'stop_stream' });
  for (const speaker of byId) await until('the voice has ended', () => speaker.ended);
  assert.ok(byId.every((speaker) => speaker.endedWell), 'the answers are complete');
  await latest.hearsNothing();
  assert.ok(!latest.ended, 'who plays the newest keeps its connection');
  await until('no encoder is left', async () => (await figures(manifold)).encoders === 0);
  latest.stop();
  await until('no listener is left', async () => (await figures(manifold)).listeners === 0);
});

scenario('a late speaker has something to play at once', async (world) => {
  const { manifold, page } = await relay(world);
  const { stream } = await voice(manifold, page, 440);
  const url = `${manifold.url}/stream/${stream}.mp3`;
  const first = await Speaker.play(world, url);
  await first.hears(440);

  const late = await Speaker.play(world, url);

  await until('it has the first bytes', () => late.firstAfter !== undefined);
  assert.ok(late.bytes >= 12 * 417, `${late.bytes} bytes at once are not 300 ms`);
  await late.hears(440);
  const [, second] = [late.seconds, Date.now()];
  await until('three more seconds are played', () => late.seconds > 4);
  assert.ok(Date.now() - second > 1_500, 'as fast as time goes, and not faster');
});

scenario('a speaker that stops taking goes on live', async (world) => {
  const { manifold, page } = await relay(world);
  const { sender, stream } = await voice(manifold, page, 440);
  const slow = Speaker.playOverSmallBuffer(world, `${manifold.url}/stream/${stream}.mp3`);
  await slow.hears(440);

  slow.pause();
  await sender.retune(880);
  let sent = [];
  const isFull = async () => {
    sent = [...sent.slice(-6), await metric(manifold, 'manifold_mp3_bytes_sent_total')];
    return sent.length === 7 && sent.every((bytes) => bytes === sent[0]);
  };
  // Three seconds, which is longer than what is kept for who comes late.
  await until('its connection holds no more', isFull, { within: 60_000, every: 500, show: () => sent });
  slow.goOn();
  const dropped = async () => (await metric(manifold, 'manifold_mp3_drops_to_live_total')) > 0;
  await until('it was put back to live', dropped, { every: 500 });
  await slow.hears(880);
});

scenario('speakers ask in many ways', async (world) => {
  const { manifold, page } = await relay(world);
  const { stream } = await voice(manifold, page, 440);
  const path = `/stream/${stream}.mp3`;

  const ranged = await Speaker.play(world, manifold.url + path, { range: 'bytes=0-', 'user-agent': 'Lavf/60' });
  assert.equal(ranged.response.statusCode, 200);
  assert.deepEqual(
    ['content-length', 'cache-control', 'accept-ranges', 'icy-metaint'].map((name) => ranged.response.headers[name]),
    [undefined, 'no-store', 'none', undefined],
  );
  await ranged.hears(440);

  const head = await answer(manifold.url + path, { method: 'HEAD' });
  assert.deepEqual([head.statusCode, head.headers['content-type']], [200, 'audio/mpeg']);
  assert.equal(head.headers['content-length'], undefined);

  const foreign = await answer(manifold.url + path, { headers: { origin: 'http://homeassistant.local:8123' } });
  assert.equal(foreign.headers['access-control-allow-origin'], '*');
  foreign.destroy();

  const unknown = await manifold.call('GET', '/stream/stream_nobody.mp3');
  assert.deepEqual([unknown.status, unknown.json.detail], [404, 'Stream not found']);
  assert.equal((await answer(`${manifold.url}/stream/stream_nobody.mp3`, { method: 'HEAD' })).statusCode, 404);

  const old = await oldAnswer(manifold.url, path);
  assert.match(old.head, /^HTTP\/1\.0 200 /);
  assert.doesNotMatch(old.head, /transfer-encoding/i);
  assert.deepEqual([...old.body.subarray(0, 2)], [0xff, 0xfb], 'the sound itself, from the first byte');
});

scenario('players that know Shoutcast are told whose voice it is', async (world) => {
  const { manifold, page } = await relay(world);
  const { stream } = await voice(manifold, page, 440);
  const radio = await answer(`${manifold.url}/stream/latest.mp3`, { headers: { 'icy-metadata': '1' } });
  assert.equal(radio.headers['icy-name'], 'Manifold');
  const every = Number(radio.headers['icy-metaint']);
  let bytes = Buffer.alloc(0);
  radio.on('data', (data) => (bytes = Buffer.concat([bytes, data])));
  await until('a note came', () => bytes.length > every + 256);
  const length = bytes[every] * 16;
  const note = bytes.subarray(every + 1, every + 1 + length).toString().replaceAll('\0', '');
  assert.equal(note, `StreamTitle='${stream}';`);
  radio.destroy();
});

scenario('a browser that opens the newest voice before there is one plays it by itself', async (world) => {
  const { manifold, page } = await relay(world);
  const { page: waiting, errors } = await world.open(`${manifold.url}/stream/latest.mp3`);
  assert.equal(await waiting.textContent('#state'), 'Nobody is speaking yet');

  const sender = await page.open('sender', manifold.url);
  await sender.speak(440);
  await waiting.waitForFunction(() => document.querySelector('#state').textContent === 'Somebody is speaking');
  await waiting.waitForFunction(() => {
    const player = document.querySelector('#player');
    return !player.paused && player.currentTime > 0.5;
  });
  const loud = async () => (await waiting.evaluate(loudest)) > 100;
  await until('the tone comes out of the page', loud, { every: 300 });
  assert.deepEqual(errors, []);
});

/** In the page: how loud the player is right now, of 255. */
function loudest() {
  window.ear ??= (() => {
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    const source = new MediaElementAudioSourceNode(context, { mediaElement: document.querySelector('#player') });
    source.connect(analyser).connect(context.destination);
    context.resume();
    return analyser;
  })();
  const levels = new Uint8Array(window.ear.frequencyBinCount);
  window.ear.getByteFrequencyData(levels);
  return Math.max(...levels);
}

async function relay(world) {
  const manifold = await world.manifold({});
  const site = await CardSite.start(world);
  return { manifold, page: await site.page() };
}

/** Somebody who is heard already. */
async function voice(manifold, page, hertz) {
  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(hertz);
  const isHeard = async () => (await manifold.get('/stream/status')).active_streams.includes(stream);
  await until(`${stream} is heard`, isHeard);
  return { sender, stream };
}

async function figures(manifold) {
  const [listeners, encoders] = [
    await metric(manifold, 'manifold_mp3_listeners'),
    await metric(manifold, 'manifold_mp3_encoders'),
  ];
  return { listeners, encoders };
}

async function metric(manifold, name) {
  const line = (await manifold.metrics()).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1]);
}

/** The head of an answer; its body is still to come. */
function answer(url, options) {
  return new Promise((answered, failed) => {
    request(url, { agent: false, ...options }, answered).on('error', failed).end();
  });
}

/** What a client of HTTP/1.0 gets in its first second. */
async function oldAnswer(url, path) {
  const { hostname, port } = new URL(url);
  const stream = connect({ host: hostname, port: Number(port) });
  let bytes = Buffer.alloc(0);
  stream.on('data', (data) => (bytes = Buffer.concat([bytes, data])));
  stream.write(`GET ${path} HTTP/1.0\r\n\r\n`);
  const end = await until('a head and some sound', () => bytes.length > 4_000 && bytes.indexOf('\r\n\r\n'));
  stream.destroy();
  return { head: bytes.subarray(0, end).toString(), body: bytes.subarray(end + 4) };
}
