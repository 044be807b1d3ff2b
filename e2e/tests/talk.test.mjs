// The talk page in real browsers, with a tone as the microphone.

import assert from 'node:assert/strict';

import { freePort } from '../harness/camera.mjs';
import { scenario } from '../harness/world.mjs';
import { TalkPage, talkingBrowser, TONES } from '../harness/talk.mjs';
import { until } from '../harness/wait.mjs';

scenario('a key is held in one page, and the tone is heard in the other', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 1000);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const listener = await TalkPage.open(world, manifold.url, { browser });
  await listener.is({ hearing: 'waiting', connection: 'open' });

  const stream = await talker.hold();

  await listener.is({ hearing: 'playing', streamId: stream });
  await listener.hears(1000);
  await until('the meters move', async () => {
    const [own, heard] = [await talker.report(), await listener.report()];
    return own.ownLevel > 0.1 && heard.voices[0].level > 0.1;
  });
  await until('its delay is measured', async () => (await listener.report()).latencyMs > 0);
  assert.match(await listener.page.locator('[data-figure="latency"]').textContent(), /^\d+(\.\d)? ms$/);
  assert.equal((await talker.report()).hearing, 'waiting', 'nobody hears himself');

  await talker.release();
  await listener.is({ hearing: 'waiting', streamId: null });
  assert.deepEqual([...talker.viewer.errors, ...listener.viewer.errors], []);
});

scenario('five pages hear the voice, those that came before it and those that came after', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 700);
  const early = [];
  for (let page = 0; page < 3; page++) early.push(await TalkPage.open(world, manifold.url, { browser }));
  const talker = await TalkPage.open(world, manifold.url, { browser });

  await talker.hold();
  const late = [];
  for (let page = 0; page < 2; page++) late.push(await TalkPage.open(world, manifold.url, { browser }));

  for (const listener of [...early, ...late]) await listener.hears(700);
});

scenario('the newest voice is followed, and the one before when it ends', async (world) => {
  const manifold = await world.manifold(TONES);
  const low = await TalkPage.open(world, manifold.url, { browser: await talkingBrowser(world, 500) });
  const high = await TalkPage.open(world, manifold.url, { browser: await talkingBrowser(world, 1500) });
  const listener = await TalkPage.open(world, manifold.url);

  const lowStream = await low.hold();
  await listener.hears(500);
  const highStream = await high.hold();
  await listener.hears(1500);
  await low.hears(1500);
  await high.hears(500);

  await listener.choose(lowStream);
  await listener.hears(500);
  await listener.choose(highStream);
  await listener.hears(1500);
  await listener.choose('newest');
  await high.release();
  await listener.hears(500);
  await listener.choose('nobody');
  await listener.is({ hearing: 'off', streamId: null });
});

scenario('a chosen voice that stops and returns is heard again', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 800);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const listener = await TalkPage.open(world, manifold.url, { browser });
  const stream = await talker.hold();
  await listener.choose(stream);
  await listener.hears(800);

  await talker.release();
  await listener.is({ hearing: 'waiting' });
  assert.equal(await talker.hold(), stream, 'the same socket is the same voice');

  await listener.is({ hearing: 'playing', streamId: stream });
  await listener.hears(800);
});

scenario('a talker whose page is reloaded in the middle is heard again', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 900);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const listener = await TalkPage.open(world, manifold.url, { browser });
  const first = await talker.hold();
  await listener.hears(900);

  await talker.page.reload();
  await listener.is({ hearing: 'waiting' });
  await talker.page.keyboard.up('Space');
  const second = await talker.hold();

  assert.notEqual(second, first);
  await listener.is({ hearing: 'playing', streamId: second });
  await listener.hears(900);
});

scenario('after the server restarted, listeners and a talker who still holds the key are back', async (world) => {
  const manifold = await world.manifold({ ...TONES, listen: [`127.0.0.1:${await freePort()}`] });
  const browser = await talkingBrowser(world, 600);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const listener = await TalkPage.open(world, manifold.url, { browser });
  await talker.hold();
  await listener.hears(600);

  await manifold.restart();
  await talker.is({ talking: 'on-air' }, 30_000);
  await listener.is({ hearing: 'playing' }, 30_000);
  await listener.hears(600);
});

scenario('the keyboard alone: the mode, the microphone, the button, whom to hear', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 1200);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const { page } = talker;
  await talker.is({ connection: 'open' });

  await tabTo(page, '[name="talk-mode"]');
  await page.keyboard.press('ArrowRight');
  await tabTo(page, '.talk-button', 'Shift+Tab');
  await page.keyboard.press('Enter');
  await talker.is({ talking: 'on-air' });
  assert.equal(await page.locator('.talk-button').getAttribute('aria-pressed'), 'true');
  await until('it is told', async () => /On air/.test(await page.locator('[role="log"]').textContent()));
  await page.keyboard.press('Space');
  await talker.is({ talking: 'idle' });

  await tabTo(page, '.setting select');
  const names = await page.locator('.setting option').allTextContents();
  assert.ok(names.length >= 2, `microphones: ${names}`);
  await page.keyboard.press('ArrowDown');

  await tabTo(page, '[name="listen"]');
  await page.keyboard.press('ArrowDown');
  await talker.is({ hearing: 'off' });
});

scenario('another microphone is used at once, while talking', async (world) => {
  const manifold = await world.manifold(TONES);
  const browser = await talkingBrowser(world, 1100);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  const listener = await TalkPage.open(world, manifold.url, { browser });
  const { page } = talker;
  await talker.is({ connection: 'open' });
  await page.getByLabel('Press on, press off').check();
  await page.locator('.talk-button').click();
  await listener.hears(1100);
  const stream = (await talker.report()).ownStreamId;

  const other = await page.locator('.setting option').last().getAttribute('value');
  assert.notEqual(other, '');
  await page.locator('.setting select').selectOption(other);

  await listener.hears(1100);
  assert.equal((await talker.report()).talking, 'on-air');
  assert.equal((await listener.report()).streamId, stream);
});

scenario('beside the wall the room opens with a key, and closing it ends the talk', async (world) => {
  const manifold = await world.manifold({ ...TONES, cameras: [{ id: 'cam-1', url: 'test://' }] });
  const browser = await talkingBrowser(world, 1300);
  const listener = await TalkPage.open(world, manifold.url, { browser });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`, { browser });
  const { page } = viewer;
  await viewer.plays('cam-1');

  await page.keyboard.press('t');
  const wall = new TalkPage(viewer);
  await wall.is({ connection: 'open' });
  await page.screenshot({ path: world.file('panel.png') });
  await page.getByLabel('Press on, press off').check();
  await page.getByRole('button', { name: 'Press to talk' }).press('Enter');
  await listener.hears(1300);

  await page.keyboard.press('t');
  await listener.is({ hearing: 'waiting' });
  await until('the focus is on the button that opens it', () =>
    page.evaluate(() => document.activeElement.getAttribute('aria-label') === 'Talk'),
  );
  await viewer.plays('cam-1');
  assert.deepEqual(viewer.errors, []);
});

scenario('without permission the page says so, and what to do', async (world) => {
  const manifold = await world.manifold(TONES);
  const refusing = await world.browser({ flags: ['--use-fake-device-for-media-stream', '--deny-permission-prompts'] });
  const talker = await TalkPage.open(world, manifold.url, { browser: refusing });
  await talker.is({ connection: 'open' });

  await talker.page.keyboard.press('Space');

  await talker.is({ talking: 'failed', trouble: 'denied' });
  assert.match(await talker.page.getByRole('alert').textContent(), /not allowed.*Allow it in the address bar/s);
});

scenario('without a microphone the page says so', async (world) => {
  const manifold = await world.manifold(TONES);
  const talker = await TalkPage.open(world, manifold.url, {
    browser: await world.browser({ flags: ['--use-fake-ui-for-media-stream'] }),
  });
  await talker.is({ connection: 'open' });

  await talker.page.keyboard.press('Space');

  await talker.is({ talking: 'failed', trouble: 'no-microphone' });
  assert.match(await talker.page.getByRole('alert').textContent(), /No microphone found/);
});

scenario('a full server is told from an absent one', async (world) => {
  const manifold = await world.manifold({ ...TONES, voice: { max_connections: 2 } });
  const browser = await talkingBrowser(world, 1000);
  const talker = await TalkPage.open(world, manifold.url, { browser });
  await talker.hold();
  const listener = await TalkPage.open(world, manifold.url, { browser });
  await until('the page says that the server is full', async () =>
    /full/i.test(await listener.page.locator('.listen-state').textContent()),
  );
  assert.equal((await talker.report()).talking, 'on-air');

  await manifold.child.stop();
  await until('the page says that the server is away', async () =>
    /away/i.test(await listener.page.locator('.listen-state').textContent()),
  );
});

scenario('on plain HTTP the page says why there is no microphone, and listens all the same', async (world) => {
  const manifold = await world.manifold({ ...TONES, http: { allowed_origins: ['http://talk.test'] } });
  const talker = await TalkPage.open(world, manifold.url, { browser: await talkingBrowser(world, 1000) });
  const elsewhere = await world.browser({ flags: ['--host-resolver-rules=MAP talk.test 127.0.0.1'] });
  const plain = manifold.url.replace('127.0.0.1', 'talk.test');
  const listener = await TalkPage.open(world, plain, { browser: elsewhere });
  await listener.is({ connection: 'open' });

  assert.match(await listener.page.locator('[data-trouble="insecure"]').textContent(), /HTTPS pages only/);
  await talker.hold();
  await listener.hears(1000);
});

for (const colorScheme of ['light', 'dark']) {
  scenario(`the talk page is legible in ${colorScheme}`, async (world) => {
    const manifold = await world.manifold(TONES);
    const browser = await talkingBrowser(world, 440);
    const talker = await TalkPage.open(world, manifold.url, { browser });
    await talker.hold();
    const { viewer, page } = await TalkPage.open(world, manifold.url, { browser, colorScheme });
    await until('the figures are shown', async () => /\d/.test(await page.locator('[data-figure="latency"]').textContent()));

    for (const selector of ['.listen h2', '.voice-detail', '.speak-hint', '.talk-label']) {
      const [text, background] = await page.evaluate(coloursOf, selector);
      assert.ok(contrast(text, background) >= 4.5, `${selector}: text ${text} on ${background}`);
      assert.equal(luminance(background) < 0.3, colorScheme === 'dark');
    }
    await page.screenshot({ path: world.file(`${colorScheme}.png`) });
    if (colorScheme === 'dark' && process.env.MANIFOLD_TALK_SCREENSHOT) {
      await page.screenshot({ path: process.env.MANIFOLD_TALK_SCREENSHOT });
    }

    await page.setViewportSize({ width: 390, height: 844 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `nothing sticks out on a phone: ${overflow} px`);
    const small = await page.evaluate(smallTargets);
    assert.deepEqual(small, [], 'fingers need 44 px');
    await page.screenshot({ path: world.file(`${colorScheme}-narrow.png`) });
    assert.deepEqual(viewer.errors, []);
  });
}

/** Presses Tab until the focus is on the element. */
async function tabTo(page, selector, key = 'Tab') {
  for (let presses = 0; presses < 30; presses++) {
    const there = await page.evaluate((wanted) => !!document.activeElement?.matches(wanted), selector);
    if (there) return;
    await page.keyboard.press(key);
  }
  assert.fail(`${key} does not reach ${selector}`);
}

/** In the page: what is too small for a finger, by its class and size. Radio buttons count by their label. */
function smallTargets() {
  const targets = [...document.querySelectorAll('.talk button, .talk select, .talk label:has(input[type="radio"]), .header a, .header button')];
  return targets
    .map((target) => ({ name: target.className || target.textContent, box: target.getBoundingClientRect() }))
    .filter(({ box }) => box.height > 0 && (box.height < 43.5 || box.width < 43.5))
    .map(({ name, box }) => `${name}: ${box.width} x ${box.height}`);
}

/** In the page: text and background colour of an element, as [red, green, blue]. */
function coloursOf(selector) {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const element = document.querySelector(selector);
  let behind = element;
  const colourOf = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  while (behind.parentElement && colourOf(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map((colour) => colourOf(colour).slice(0, 3));
}

/** Relative luminance, WCAG 2.2. */
function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast ratio, WCAG 2.2. */
function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}
