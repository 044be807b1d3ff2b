// Those who speak and those who listen, as pages of an old voice card: written from the protocol alone,
// served by another site than the server, and without a line of the server's own page.

import { createServer } from 'node:http';

import { until } from './wait.mjs';

/** Pages of another site, as Home Assistant's are. */
export class CardSite {
  /**
   * @param {import('./world.mjs').World} world
   * @param {string} [host] an address of this machine under which browsers reach it
   */
  static async start(world, host = '127.0.0.1') {
    const site = new CardSite();
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>cards</title>');
    });
    await new Promise((listening) => server.listen(0, host, listening));
    world.after(() => server.close());
    site.url = `http://${host}:${server.address().port}/`;
    site.world = world;
    return site;
  }

  /**
   * A page with cards in it.
   *
   * @param {import('./browser.mjs').Browser} [browser] a new one if none is given
   */
  async page(browser) {
    const viewer = await this.world.open(this.url, { browser });
    await viewer.page.evaluate(defineCards);
    return new CardPage(viewer.page);
  }
}

/** A page with cards, each known by a name. */
export class CardPage {
  constructor(page) {
    this.page = page;
  }

  /** Opens a card's WebSocket. */
  async open(name, url) {
    await this.page.evaluate(([name, url]) => window.cards.open(name, url), [name, socketUrl(url)]);
    return new Card(this.page, name);
  }
}

/** One card: a WebSocket, and what was said on it. */
export class Card {
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  #call(method, ...args) {
    return this.page.evaluate(
      ([name, method, args]) => window.cards.all[name][method](...args),
      [this.name, method, args],
    );
  }

  /** Sends a message as it is. */
  send(message) {
    return this.#call('send', message);
  }

  /** Speaks in a tone; resolves with the id of its stream when the server has answered the offer. */
  speak(hertz) {
    return this.#call('speak', hertz);
  }

  /** Speaks another tone from here on. */
  retune(hertz) {
    return this.#call('retune', hertz);
  }

  /** Asks for a stream, or for the newest one. Whatever the server offers is answered. */
  listen(stream) {
    return this.send(stream === undefined ? { type: 'start_receiving' } : { type: 'start_receiving', stream_id: stream });
  }

  /** Does what cards of the old voice server do: asks again two seconds after `No audio stream available`. */
  retries() {
    return this.#call('retries');
  }

  /** All messages so far. */
  messages() {
    return this.#call('messages');
  }

  /** Waits for a message with these fields. */
  async says(fields, within = 15_000) {
    let all;
    return until(
      `${this.name} is told ${JSON.stringify(fields)}`,
      async () => {
        all = await this.messages();
        return all.find((message) => Object.entries(fields).every(([key, value]) => message[key] === value));
      },
      { within, show: () => all?.slice(-6) },
    );
  }

  /** Waits until the loudest tone lies within `tolerance` Hz of `hertz`. */
  async hears(hertz, { tolerance = 15, within = 15_000 } = {}) {
    let tone;
    await until(
      `${this.name} hears ${hertz} Hz`,
      async () => {
        tone = await this.#call('tone');
        return tone !== null && tone.level > -60 && Math.abs(tone.hertz - hertz) <= tolerance;
      },
      { within, every: 200, show: () => tone },
    );
  }

  /** The loudest tone now: `{ hertz, level }`, or `null` while there is no track. */
  tone() {
    return this.#call('tone');
  }

  /** The `inbound-rtp` statistics of what it hears. */
  inbound() {
    return this.#call('inbound');
  }

  /** How many peer connections it has made to listen, and the state of each. */
  peers() {
    return this.#call('peerStates');
  }

  close() {
    return this.#call('close');
  }
}

/** `http://host` to `ws://host/ws`. */
export function socketUrl(url) {
  return url.startsWith('ws') ? url : `${url.replace(/^http/, 'ws')}/ws`;
}

/** In the page. */
function defineCards() {
  const context = new AudioContext();

  class PageCard {
    static async open(url) {
      const card = new PageCard();
      card.said = [];
      card.waiting = [];
      card.receivers = [];
      card.socket = new WebSocket(url);
      card.socket.onmessage = ({ data }) => card.handle(JSON.parse(data));
      await new Promise((opened, failed) => {
        card.socket.onopen = opened;
        card.socket.onerror = () => failed(new Error(`no WebSocket at ${url}`));
      });
      card.socket.onclose = ({ code, reason }) => card.handle({ type: 'closed', code, reason });
      return card;
    }

    send(message) {
      this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    }

    handle(message) {
      this.said.push(message);
      this.waiting = this.waiting.filter((wait) => !wait(message));
      if (message.type === 'webrtc_offer') this.answer(message.offer);
      if (this.repeats && message.type === 'error' && message.message.includes('No audio stream')) {
        setTimeout(() => this.send({ type: 'start_receiving' }), 2_000);
      }
    }

    next(type) {
      return new Promise((told) => {
        this.waiting.push((message) => message.type === type && (told(message), true));
      });
    }

    retries() {
      this.repeats = true;
    }

    async speak(hertz) {
      const ready = this.next('sender_ready');
      this.send({ type: 'start_sending' });
      const { connection_id: id } = await ready;
      await context.resume();
      this.oscillator?.stop();
      this.oscillator = new OscillatorNode(context, { frequency: hertz });
      const destination = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
      this.oscillator.connect(new GainNode(context, { gain: 0.5 })).connect(destination);
      this.oscillator.start();
      this.sender?.close();
      this.sender = new RTCPeerConnection({ iceServers: [] });
      for (const track of destination.stream.getTracks()) this.sender.addTrack(track, destination.stream);
      await this.sender.setLocalDescription(await this.sender.createOffer());
      const { sdp, type } = this.sender.localDescription;
      const answered = this.next('webrtc_answer');
      this.send({ type: 'webrtc_offer', offer: { sdp, type } });
      const { answer } = await answered;
      await this.sender.setRemoteDescription(answer);
      return `stream_${id}`;
    }

    retune(hertz) {
      this.oscillator.frequency.value = hertz;
    }

    async answer(offer) {
      const peer = new RTCPeerConnection({ iceServers: [] });
      for (const before of this.receivers) before.close();
      this.receivers.push(peer);
      peer.ontrack = ({ streams }) => this.play(streams[0]);
      peer.onicecandidate = ({ candidate }) => {
        if (candidate !== null) this.send({ type: 'ice_candidate', candidate: candidate.toJSON() });
      };
      await peer.setRemoteDescription(offer);
      await peer.setLocalDescription(await peer.createAnswer());
      const { sdp, type } = peer.localDescription;
      this.send({ type: 'webrtc_answer', answer: { sdp, type } });
    }

    play(stream) {
      // Chromium lets nothing through to WebAudio of a stream that no element plays.
      this.element ??= new Audio();
      this.element.srcObject = stream;
      this.element.muted = true;
      this.element.play();
      this.analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
      new MediaStreamAudioSourceNode(context, { mediaStream: stream }).connect(this.analyser);
    }

    async tone() {
      await context.resume();
      if (this.analyser === undefined) return null;
      const levels = new Float32Array(this.analyser.frequencyBinCount);
      this.analyser.getFloatFrequencyData(levels);
      const loudest = levels.reduce((best, level, bin) => (level > levels[best] ? bin : best), 0);
      return { hertz: (loudest * context.sampleRate) / this.analyser.fftSize, level: levels[loudest] };
    }

    async inbound() {
      const stats = await this.receivers.at(-1)?.getStats();
      return [...(stats?.values() ?? [])].find(({ type }) => type === 'inbound-rtp') ?? null;
    }

    messages() {
      return this.said;
    }

    peerStates() {
      return this.receivers.map((peer) => peer.connectionState);
    }

    close() {
      this.socket.close();
      this.sender?.close();
      for (const peer of this.receivers) peer.close();
    }
  }

  window.cards = {
    all: {},
    async open(name, url) {
      this.all[name] = await PageCard.open(url);
    },
  };
}
