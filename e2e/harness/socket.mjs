// A WebSocket client that can also do what browsers would not: any frame, any bytes.

import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';

import { until } from './wait.mjs';

const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** One connection; `messages` holds the JSON of all that came. */
export class Socket {
  /**
   * @param {string} url as `http://host:port`
   * @param {{ path?: string, headers?: Record<string, string>, from?: string }} [options] `from`: the address that
   *   it comes from
   */
  static async open(url, { path = '/ws', headers = {}, from } = {}) {
    const { hostname, port, host } = new URL(url);
    const place = { host: hostname.replace(/[[\]]/g, ''), port: Number(port) };
    const stream = connect({ ...place, noDelay: true, localAddress: from });
    const socket = new Socket(stream);
    const head = {
      host,
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': randomBytes(16).toString('base64'),
      ...headers,
    };
    const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`);
    stream.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
    await until('an answer to the upgrade', () => socket.status ?? socket.ended, { every: 5 });
    return socket;
  }

  constructor(stream) {
    this.stream = stream;
    this.rest = Buffer.alloc(0);
    this.messages = [];
    /** `{ code, reason }` of the server's close frame. */
    this.closed = null;
    /** The connection is gone. */
    this.ended = false;
    this.pings = 0;
    this.answersPings = true;
    stream.on('data', (bytes) => this.#take(bytes));
    stream.on('error', (error) => (this.error = error));
    stream.on('close', () => (this.ended = true));
  }

  /** Sends JSON. */
  tell(message) {
    this.text(JSON.stringify(message));
  }

  text(text) {
    this.frame(TEXT, Buffer.from(text));
  }

  binary(bytes) {
    this.frame(BINARY, bytes);
  }

  ping() {
    this.frame(PING, Buffer.alloc(0));
  }

  /** One whole frame, masked as RFC 6455 §5.3 wants it of clients. */
  frame(opcode, payload) {
    const mask = randomBytes(4);
    const head = [Buffer.from([0x80 | opcode])];
    if (payload.length < 126) head.push(Buffer.from([0x80 | payload.length]));
    else if (payload.length < 65_536) head.push(Buffer.from([0x80 | 126]), number(payload.length, 2));
    else head.push(Buffer.from([0x80 | 127]), number(payload.length, 8));
    const masked = Buffer.from(payload);
    for (let at = 0; at < masked.length; at += 1) masked[at] ^= mask[at % 4];
    this.raw(Buffer.concat([...head, mask, masked]));
  }

  /** Bytes as they are. */
  raw(bytes) {
    if (!this.stream.destroyed) this.stream.write(bytes);
  }

  /** The first message that `fits` and was not waited for before. */
  async next(what, fits, { within = 5_000 } = {}) {
    const found = await until(what, () => this.messages.find((message) => fits(message)), {
      within,
      every: 5,
      show: () => JSON.stringify({ messages: this.messages.slice(-8), closed: this.closed, ended: this.ended }),
    });
    this.messages.splice(this.messages.indexOf(found), 1);
    return found;
  }

  /** The first message of a type. */
  of(type, options) {
    return this.next(`a message of type ${type}`, (message) => message.type === type, options);
  }

  /** The words of the next error. */
  async error_(options) {
    return (await this.of('error', options)).message;
  }

  /** Waits for the server's close frame; its code. */
  async end({ within = 5_000 } = {}) {
    await until('the server closes', () => this.closed ?? this.ended, { within, every: 5 });
    return this.closed?.code ?? null;
  }

  /** Everything that was sent before is read and obeyed: a message is answered after those before it. */
  async settled() {
    this.tell({ type: 'ping' });
    await this.of('pong');
  }

  close() {
    this.frame(CLOSE, number(1000, 2));
    this.stream.end();
  }

  /** Pulls the cable. */
  destroy() {
    this.stream.destroy();
  }

  #take(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    if (this.status === undefined && !this.#takeHead()) return;
    while (this.#takeFrame());
  }

  #takeHead() {
    const end = this.rest.indexOf('\r\n\r\n');
    if (end < 0) return false;
    this.head = this.rest.subarray(0, end).toString();
    this.rest = this.rest.subarray(end + 4);
    this.status = Number(this.head.split(' ')[1]);
    return this.status === 101;
  }

  #takeFrame() {
    if (this.status !== 101 || this.rest.length < 2) return false;
    const opcode = this.rest[0] & 15;
    let length = this.rest[1] & 127;
    let at = 2;
    if (length === 126) {
      if (this.rest.length < 4) return false;
      length = this.rest.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (this.rest.length < 10) return false;
      length = Number(this.rest.readBigUInt64BE(2));
      at = 10;
    }
    if (this.rest.length < at + length) return false;
    const payload = this.rest.subarray(at, at + length);
    this.rest = this.rest.subarray(at + length);
    if (opcode === TEXT) this.messages.push(JSON.parse(payload.toString()));
    if (opcode === PING) {
      this.pings += 1;
      if (this.answersPings) this.frame(PONG, payload);
    }
    if (opcode === CLOSE) {
      this.closed = { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
      if (!this.stream.destroyed) this.frame(CLOSE, number(this.closed.code, 2));
    }
    return true;
  }
}

function number(value, bytes) {
  const buffer = Buffer.alloc(bytes);
  if (bytes === 8) buffer.writeBigUInt64BE(BigInt(value));
  else buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}
