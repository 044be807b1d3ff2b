// The cards for Home Assistant, in a dashboard of another site, with a tone as the microphone.

import assert from 'node:assert/strict';

import { Viewer } from '../harness/browser.mjs';
import { Dashboard, OPEN_NETWORK } from '../harness/lovelace.mjs';
import { TalkPage, talkingBrowser, TONES } from '../harness/talk.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const [SENDING, RECEIVING] = ['voice-sending-card', 'voice-receiving-card'];
const CARDS = '/cards/manifold-cards.js';

scenario('one card talks while it is held, and the other one hears it', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 1000);
  const kitchen = await Dashboard.open(world, browser, { script: manifold.url + CARDS });
  const hall = await Dashboard.open(world, browser, { script: manifold.url + CARDS });
  const host = new URL(manifold.url).host;
  await kitchen.add(SENDING, { server_url: host, name: 'Kitchen' });
  await hall.add(RECEIVING, { server_url: `ws://${host}/ws`, auto_listen: true });
  await hall.reads(RECEIVING, /Waiting for a voice/);

  const button = await kitchen.inside(SENDING, '.talk').boundingBox();
  await kitchen.page.mouse.move(button.x + button.width / 2, button.y + button.height / 2);
  await kitchen.page.mouse.down();

  await kitchen.reads(SENDING, /Let go to end/);
  await hears(hall, 1000);
  await hall.reads(RECEIVING, /^Hearing Voice [0-9A-F]{4}$/);
  await until('the meter moves', () =>
    hall.inside(RECEIVING, '.meter').evaluate((meter) => Number(meter.style.getPropertyValue('--level')) > 0.5),
  );
  await hall.reads(RECEIVING, /\d ms from the server to your ear/, { selector: '.latency' });
  await kitchen.page.screenshot({ path: world.file('sending.png') });
  await hall.page.screenshot({ path: world.file('receiving.png') });

  await kitchen.page.mouse.up();
  await kitchen.reads(SENDING, /Ready/);
  await hall.reads(RECEIVING, /Waiting for a voice/);
  assert.deepEqual([...kitchen.errors, ...hall.errors], []);
});

scenario('a card that is latched talks on, by the keyboard, until it is pressed again', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 900);
  const listener = await TalkPage.open(world, manifold.url, { browser });
  const home = await Dashboard.open(world, browser, { script: manifold.url + CARDS });
  await home.add(SENDING, { mode: 'latch' });

  await home.page.keyboard.press('Tab');
  await home.page.keyboard.press('Space');
  await home.reads(SENDING, /Press again to end/);
  await listener.hears(900);
  assert.equal(await home.inside(SENDING, '.talk').getAttribute('aria-pressed'), 'true');

  await home.page.keyboard.press('Enter');
  await home.reads(SENDING, /Ready/);
  await listener.is({ hearing: 'waiting' });
});

scenario('a card that is taken out of the view lets go of everything, and works when it is put back', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 700);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const home = await Dashboard.open(world, browser, { script: manifold.url + CARDS });
  await home.add(RECEIVING, { auto_listen: true });
  await talker.hold();
  await hears(home, 700);

  await home.page.evaluate((tag) => (window.card = document.querySelector(tag)).remove(), RECEIVING);
  let health;
  await until(
    'its WebSocket is closed',
    async () => {
      health = await manifold.get('/health');
      return health.connected_clients === 2;
    },
    { show: () => health },
  );

  await home.page.evaluate(() => document.getElementById('view').append(window.card));
  await hears(home, 700);
});

scenario('a media player is told to play, when a voice starts and by the button', async (world) => {
  const manifold = await world.manifold({ ...TONES, http: { allowed_origins: ['http://voice.test'] } });
  const browser = await talkingBrowser(world, 800);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const mapped = await world.browser({ flags: ['--host-resolver-rules=MAP voice.test 127.0.0.1'] });
  const { port } = new URL(manifold.url);
  const home = await Dashboard.open(world, mapped, { script: manifold.url + CARDS });
  await home.add(RECEIVING, {
    server_url: `voice.test:${port}`,
    auto_listen: true,
    target_media_player: 'media_player.kitchen',
  });
  await home.reads(RECEIVING, /Nobody speaks/);

  await talker.hold();
  const call = [
    'media_player',
    'play_media',
    {
      entity_id: 'media_player.kitchen',
      media_content_id: `http://voice.test:${port}/stream/latest.mp3`,
      media_content_type: 'music',
    },
  ];
  await until('the player was told', async () => (await home.calls()).length === 1);
  assert.deepEqual(await home.calls(), [call]);

  await home.page.evaluate(() => (window.home.refusal = 'Kitchen is unplugged'));
  await home.page.getByRole('button', { name: 'Play on Kitchen' }).click();
  await home.reads(RECEIVING, /Kitchen does not play: Kitchen is unplugged\./, { selector: '.note' });
  assert.deepEqual(await home.calls(), [call, call]);
});

scenario('a speaker is not sent to itself, nor a player that is not there', async (world) => {
  const manifold = await world.manifold(TONES);
  const home = await Dashboard.open(world, await world.browser(), { script: manifold.url + CARDS });
  await home.add(RECEIVING, { target_media_player: 'media_player.kitchen' });
  await home.page.getByRole('button', { name: 'Play on Kitchen' }).click();
  await home.reads(RECEIVING, /cannot reach http:\/\/127.*means the speaker itself/, { selector: '.note' });
  assert.deepEqual(await home.calls(), []);
});

scenario('the visual editors tell each change, and keep what they do not know', async (world) => {
  const manifold = await world.manifold();
  const home = await Dashboard.open(world, await world.browser(), { script: manifold.url + CARDS });
  await home.page.evaluate((tag) => {
    const editor = customElements.get(tag).getConfigElement();
    window.changes = [];
    addEventListener('config-changed', (event) => window.changes.push(event.detail.config));
    editor.setConfig({ type: `custom:${tag}`, server_url: 'old:8080', view_layout: { column: 2 } });
    editor.hass = window.home.hass;
    document.getElementById('view').append(editor);
  }, RECEIVING);
  const { page } = home;
  const last = () => page.evaluate(() => window.changes.at(-1));
  const kept = { type: `custom:${RECEIVING}`, view_layout: { column: 2 } };

  await page.getByLabel('Server').fill('http://new:8080');
  assert.deepEqual(await last(), { ...kept, server_url: 'http://new:8080' });
  await page.getByLabel('Listen automatically').check();
  await page.getByLabel('Play on').selectOption({ label: 'Kitchen' });
  assert.deepEqual(await last(), {
    ...kept,
    server_url: 'http://new:8080',
    auto_listen: true,
    target_media_player: 'media_player.kitchen',
  });
  await page.getByLabel('Listen automatically').uncheck();
  await page.getByLabel('Server').fill('');
  assert.deepEqual(await last(), { ...kept, target_media_player: 'media_player.kitchen' });
  await page.screenshot({ path: world.file('editor.png') });
});

scenario('the cards are listed for the picker with a configuration that works', async (world) => {
  const manifold = await world.manifold();
  const home = await Dashboard.open(world, await world.browser(), { script: manifold.url + CARDS });
  const listed = await home.page.evaluate(() => window.customCards);
  assert.deepEqual(listed.map((card) => card.type), [SENDING, RECEIVING]);
  for (const tag of [SENDING, RECEIVING]) {
    const stub = await home.page.evaluate((tag) => customElements.get(tag).getStubConfig(), tag);
    assert.equal(stub.server_url, manifold.url);
    assert.equal(await home.objection(tag, stub), '');
    await home.add(tag, stub);
    const size = await home.page.evaluate((tag) => document.querySelector(tag).getCardSize(), tag);
    assert.ok(size >= 1);
  }
  // Twice among the resources is a common mistake.
  await home.page.evaluate((url) => import(`${url}?v=2`), manifold.url + CARDS);
  assert.deepEqual(home.errors, []);
  assert.equal(await home.page.evaluate(() => window.customCards.length), 2);
});

scenario('a wrong configuration is refused in a sentence', async (world) => {
  const manifold = await world.manifold();
  const { text } = await manifold.call('GET', CARDS);
  const home = await Dashboard.open(world, await world.browser(), { script: '/local/cards.js', scriptBody: text });
  assert.match(await home.objection(SENDING, {}), /^server_url is missing; write .*\.$/);
  assert.match(await home.objection(SENDING, { server_url: 'ftp://host' }), /^server_url “ftp:\/\/host” begins with ftp:/);
  assert.match(await home.objection(RECEIVING, { server_url: 'host', auto_listen: 'yes' }), /^auto_listen has to be true or false/);
  assert.match(await home.objection(RECEIVING, { server_url: 'host', target_media_player: 'light.hall' }), /like media_player\.kitchen\.$/);
});

scenario('a dashboard on HTTPS says why it cannot use a plain server, and what to write', async (world) => {
  const manifold = await world.manifold();
  const { text } = await manifold.call('GET', CARDS);
  const home = await Dashboard.open(world, await world.browser({ flags: [OPEN_NETWORK] }), {
    host: 'home.test',
    secure: true,
    script: '/local/cards.js',
    scriptBody: text,
  });
  await home.add(SENDING, { server_url: 'http://192.168.1.20:8080' });
  await home.reads(SENDING, /came by HTTPS.*Set server_url to https:\/\/192\.168\.1\.20:8443\./, { selector: '.note' });

  await home.add(RECEIVING, { server_url: manifold.url, auto_listen: true });
  await home.reads(RECEIVING, /Waiting for a voice/);
});

scenario('a dashboard on plain HTTP says why it has no microphone', async (world) => {
  const manifold = await world.manifold();
  const { text } = await manifold.call('GET', CARDS);
  const browser = await world.browser({ flags: ['--host-resolver-rules=MAP home.test 127.0.0.1'] });
  const home = await Dashboard.open(world, browser, { host: 'home.test', script: '/local/cards.js', scriptBody: text });
  await home.add(SENDING, { server_url: manifold.url });
  await home.reads(SENDING, /browsers hand a microphone to HTTPS pages only/, { selector: '.note' });
  await home.reads(SENDING, /Microphone off/, { selector: '.talk-label' });
});

scenario('the script is one file that any site may import and any cache keep', async (world) => {
  const manifold = await world.manifold();
  const { status, headers, text } = await manifold.call('GET', CARDS, { headers: { origin: 'http://homeassistant.local:8123' } });
  assert.equal(status, 200);
  assert.equal(headers.get('access-control-allow-origin'), '*');
  assert.match(headers.get('content-type'), /^text\/javascript/);
  assert.doesNotMatch(text, /^import |\bimport\(/m);
  const again = await manifold.call('GET', CARDS, { headers: { 'if-none-match': headers.get('etag') } });
  assert.deepEqual([again.status, again.text], [304, '']);
  assert.equal(again.headers.get('access-control-allow-origin'), '*');
  const page = await manifold.call('GET', '/talk', { headers: { origin: 'http://homeassistant.local:8123' } });
  assert.equal(page.headers.get('access-control-allow-origin'), null, 'the pages are for nobody else');
});

/** Waits until the receiving card sounds at `hertz`. */
function hears(dashboard, hertz) {
  return new Viewer(dashboard.page, null, []).hearsAt(`${RECEIVING}>>>audio`, hertz);
}
