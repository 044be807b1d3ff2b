// A dashboard of Home Assistant, as far as custom cards see it: another site, `ha-card`, a `hass` object,
// and elements that are made, configured and put into the page in Lovelace's order.

import { createServer } from 'node:http';

import { until } from './wait.mjs';

const PAGE = `<!doctype html><meta charset="utf-8"><title>Home</title>
<style>body { margin: 24px; background: #fafafa } #view { display: grid; gap: 16px; width: 420px }</style>
<div id="view"></div>`;

export class Dashboard {
  /**
   * @param {import('./world.mjs').World} world
   * @param {import('./browser.mjs').Browser} browser
   * @param {object} options
   * @param {string} options.script the cards' address; without a host it is a file of the dashboard
   * @param {string} [options.scriptBody] what is in that file
   * @param {string} [options.host] a name under which the browser reaches this machine
   * @param {boolean} [options.secure] the dashboard comes by HTTPS
   */
  static async open(world, browser, { script, scriptBody = '', host = 'localhost', secure = false }) {
    const context = await browser.client.newContext({ viewport: { width: 480, height: 900 } });
    const page = await context.newPage();
    const dashboard = new Dashboard(page);
    world.viewers.push(dashboard);
    const origin = secure ? await answerSecurely(page, host, scriptBody) : await serve(world, host, scriptBody);
    await page.goto(`${origin}/lovelace/0`);
    await page.evaluate(makeHome);
    await page.evaluate((url) => import(url), new URL(script, origin).href);
    return dashboard;
  }

  constructor(page) {
    this.page = page;
    this.errors = [];
    page.on('pageerror', (error) => this.errors.push(String(error)));
  }

  /** For the report of a failure. */
  async figures() {
    return this.page.evaluate(() => [...document.querySelectorAll('#view > *')].map((card) => card.shadowRoot.textContent));
  }

  /** Adds a card; throws with what `setConfig` throws. */
  add(tag, config) {
    return this.page.evaluate(
      ([tag, config]) => {
        const card = document.createElement(tag);
        card.setConfig({ type: `custom:${tag}`, ...config });
        card.hass = window.home.hass;
        document.getElementById('view').append(card);
      },
      [tag, config],
    );
  }

  /** What `setConfig` says of a configuration; empty where it takes it. */
  objection(tag, config) {
    return this.page.evaluate(
      ([tag, config]) => {
        try {
          document.createElement(tag).setConfig({ type: `custom:${tag}`, ...config });
          return '';
        } catch (error) {
          return error.message;
        }
      },
      [tag, config],
    );
  }

  /** The calls of services so far, each `[domain, service, data]`. */
  calls() {
    return this.page.evaluate(() => window.home.calls);
  }

  /** Something in a card. */
  inside(tag, selector) {
    return this.page.locator(tag).locator(selector);
  }

  /** Waits until a card's line of state, or another element in it, reads like this. */
  async reads(tag, pattern, { within = 15_000, selector = '.status' } = {}) {
    let text;
    await until(
      `${tag} reads ${pattern}`,
      async () => {
        text = await this.inside(tag, selector).textContent();
        return pattern.test(text);
      },
      { within, show: () => text },
    );
  }
}

/** A site on this machine; its origin. */
async function serve(world, host, scriptBody) {
  const server = createServer((request, response) => {
    const isScript = request.url.endsWith('.js');
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? scriptBody : PAGE);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  world.after(() => server.close());
  return `http://${host}:${server.address().port}`;
}

/**
 * A site that comes by HTTPS, answered within the browser; its origin. Such an answer has no address, so
 * that the browser has to be told not to keep it from this machine's (`OPEN_NETWORK`).
 */
async function answerSecurely(page, host, scriptBody) {
  await page.route(`https://${host}/**`, (route) =>
    route.request().url().endsWith('.js')
      ? route.fulfill({ contentType: 'text/javascript', body: scriptBody })
      : route.fulfill({ contentType: 'text/html', body: PAGE }),
  );
  return `https://${host}`;
}

/** For `World.browser`. */
export const OPEN_NETWORK = '--disable-features=LocalNetworkAccessChecks';

/** In the page: what Home Assistant's frontend gives to cards. */
function makeHome() {
  if (!customElements.get('ha-card')) customElements.define('ha-card', class extends HTMLElement {});
  const calls = [];
  const states = {
    'media_player.kitchen': { state: 'idle', attributes: { friendly_name: 'Kitchen' } },
    'light.hall': { state: 'on', attributes: {} },
  };
  const callService = async (...call) => {
    calls.push(call);
    if (window.home.refusal) throw new Error(window.home.refusal);
  };
  window.home = { calls, refusal: '', hass: { states, callService } };
}
