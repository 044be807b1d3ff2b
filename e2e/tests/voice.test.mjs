// The voice relay, with Chromium as cards of the old server use it: who speaks is heard by everybody, in
// whatever order people come and go.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { CardSite, socketUrl } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const NO_VOICE = { type: 'error', message: 'No audio stream available' };

scenario('sender first: five receivers hear the tone, each of them', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(440);
  assert.match(stream, /^stream_[0-9a-f-]{36}$/);

  const receivers = await openAll(page, manifold, 5);
  for (const receiver of receivers) await receiver.listen();
  for (const receiver of receivers) await receiver.hears(440);

  const health = await manifold.get('/health');
  assert.deepEqual(
    [health.status, health.webrtc_available, health.active_streams, health.connected_clients],
    ['healthy', true, 1, 6],
  );
  assert.deepEqual(await manifold.get('/stream/status'), { active_streams: [stream] });
  await sender.retune(700);
  for (const receiver of receivers) await receiver.hears(700);
});

scenario('receivers first: who waits hears the voice when it starts', async (world) => {
  const { manifold, page } = await relay(world);
  const [patient, retrying, listening] = await openAll(page, manifold, 3);
  await retrying.retries();
  for (const receiver of [patient, retrying, listening]) {
    await receiver.listen();
    await receiver.says(NO_VOICE);
  }

  const sender = await page.open('sender', manifold.url);
  const stream = await sender.speak(520);
  await listening.says({ type: 'stream_available', stream_id: stream });
  await listening.listen(stream);

  for (const receiver of [patient, retrying, listening]) await receiver.hears(520);
  for (const receiver of [patient, retrying, listening]) {
    const states = await receiver.peers();
    assert.equal(states.filter((state) => state !== 'closed').length, 1, `${receiver.name}: ${states}`);
  }
});

scenario('a receiver goes from one voice to another on one WebSocket, and back to the newest', async (world) => {
  const { manifold, page } = await relay(world);
  const [one, other] = [await page.open('one', manifold.url), await page.open('other', manifold.url)];
  const low = await one.speak(300);
  const high = await other.speak(900);
  await until('both are heard', async () => (await manifold.get('/stream/status')).active_streams.length === 2);
  const receiver = await page.open('receiver', manifold.url);
  const { streams } = await receiver.says({ type: 'available_streams' });
  assert.deepEqual([...streams].sort(), [low, high].sort(), 'told unasked on connect');

  await receiver.listen(low);
  await receiver.hears(300);
  await receiver.listen(high);
  await receiver.hears(900);
  await receiver.listen(low);
  await receiver.hears(300);
  await receiver.listen();
  await receiver.hears(900);
});

scenario('who stops is told to everybody, and is heard again when starting again', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const [receiver] = await openAll(page, manifold, 1);
  const first = await sender.speak(440);
  await receiver.listen();
  await receiver.hears(440);

  await sender.send({ type: 'stop_stream' });
  await receiver.says({ type: 'stream_ended', stream_id: first });
  await receiver.says({ type: 'error', message: 'Stream ended' });
  await nothingLeft(manifold, { connected_clients: 2 });

  await sender.speak(660);
  await receiver.listen();
  await receiver.hears(660);
  await receiver.send({ type: 'stop_stream' });
  await receiver.send({ type: 'ping' });
  await receiver.says({ type: 'pong' });
  await receiver.listen();
  await receiver.hears(660);
});

scenario('a sender that begins anew takes the place of its own voice', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const [receiver] = await openAll(page, manifold, 1);
  await sender.speak(440);
  await receiver.listen();
  await receiver.hears(440);

  await sender.speak(880);
  await receiver.listen();
  await receiver.hears(880);
  const { active_streams: streams } = await manifold.get('/stream/status');
  assert.equal(streams.length, 1);
});

scenario('a sender that is killed ends its voice within seconds, and nothing is left', async (world) => {
  const { manifold, site, page } = await relay(world);
  const browser = await world.browser();
  const sender = await (await site.page(browser)).open('sender', manifold.url);
  const stream = await sender.speak(440);
  const [receiver] = await openAll(page, manifold, 1);
  await receiver.listen();
  await receiver.hears(440);

  await browser.kill();

  await receiver.says({ type: 'stream_ended', stream_id: stream }, 12_000);
  await nothingLeft(manifold, { connected_clients: 1 });
  await receiver.close();
  await nothingLeft(manifold, { connected_clients: 0 });
});

scenario('everybody is told how loud a voice is', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const [bystander] = await openAll(page, manifold, 1);
  const stream = await sender.speak(440);

  const first = await bystander.says({ type: 'audio_data', stream_id: stream });
  assert.equal(typeof first.timestamp, 'number');
  const loud = await until('the level is that of the tone', async () => {
    const told = (await bystander.messages()).filter(({ type }) => type === 'audio_data');
    return told.find(({ level }) => level > 0.05 && level <= 1);
  });
  assert.ok(loud.dbov <= 0 && loud.dbov > -40, JSON.stringify(loud));
  const times = (await bystander.messages()).filter(({ type }) => type === 'audio_data').map(({ timestamp }) => timestamp);
  assert.ok(times.length <= 10 * (times.at(-1) - times[0]) + 2, `${times.length} in ${times.at(-1) - times[0]} s`);
});

scenario('the log tells of a conversation in the words that scripts look for', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const [receiver] = await openAll(page, manifold, 1);
  await receiver.listen();
  await receiver.says(NO_VOICE);
  const stream = await sender.speak(440);
  const id = stream.replace('stream_', '');
  await receiver.listen();
  await receiver.hears(440);
  await sender.close();
  await receiver.says({ type: 'stream_ended', stream_id: stream });

  const words = [
    `Setting up sender for connection ${id}`,
    `Received audio track from sender ${id}`,
    `Stored stream ${stream} for sender ${id}`,
    `ICE connection state for sender ${id}: connected`,
    `Cleaning up connection ${id}`,
    `Audio track ended for ${id}`,
  ];
  const patterns = [
    /No audio stream available for receiver [0-9a-f-]{36}/,
    new RegExp(`Sent offer to receiver [0-9a-f-]{36} for stream ${stream}`),
    /ICE connection state for receiver [0-9a-f-]{36}: connected/,
  ];
  await until('the log has all of it', () => words.every((line) => manifold.logs.includes(line)), {
    show: () => words.filter((line) => !manifold.logs.includes(line)),
  });
  for (const pattern of patterns) await manifold.child.says(pattern);
});

scenario('a listener that shares no code with browsers hears the tone', async (world) => {
  const { manifold, page } = await relay(world);
  const listener = new Child(
    'aiortc listener',
    part('aiortc'),
    [join(root, 'viewers/aiortc_listener.py'), '--url', socketUrl(manifold.url)],
    { log: world.file('aiortc-listener.log') },
  );
  world.own(listener);
  const sender = await page.open('sender', manifold.url);
  await sender.speak(440);

  await listener.ended;
  assert.equal(listener.code, 0, listener.tail(10));
  const { tone_hz: tone } = JSON.parse(listener.output.trimEnd().split('\n').pop());
  assert.ok(Math.abs(tone - 440) <= 10, `${tone} Hz`);
});

/** A server, and a page with cards. */
async function relay(world) {
  const manifold = await world.manifold({});
  const site = await CardSite.start(world);
  return { manifold, site, page: await site.page() };
}

async function openAll(page, manifold, count) {
  const cards = [];
  for (let i = 0; i < count; i++) cards.push(await page.open(`receiver-${i}`, manifold.url));
  return cards;
}

/** Waits until no voice is left, and as many clients as there should be. */
async function nothingLeft(manifold, { connected_clients: clients }) {
  let seen;
  const isSo = async () => {
    const [health, status] = [await manifold.get('/health'), await manifold.get('/stream/status')];
    seen = { clients: health.connected_clients, streams: health.active_streams, status };
    return seen.clients === clients && seen.streams === 0 && status.active_streams.length === 0;
  };
  await until(`no voice and ${clients} clients`, isSo, { show: () => seen });
}
