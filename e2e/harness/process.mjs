// Child processes: started with their output kept, ended by their own pid.

import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';

import { until } from './wait.mjs';

const running = new Set();

// Whatever way this test file ends, nothing that it started stays behind.
process.on('exit', () => running.forEach((child) => child.signal('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** A running program whose output is kept in memory and in a file. */
export class Child {
  /**
   * @param {string} name for messages
   * @param {string} program
   * @param {string[]} args
   * @param {{ cwd?: string, env?: Record<string, string>, log: string, input?: boolean, outputs?: number }} options
   *   `log`: a file; `input`: it reads its standard input; `outputs`: pipes from it beyond the standard ones
   */
  constructor(name, program, args, { cwd, env, log, input = false, outputs = 0 }) {
    this.name = name;
    this.log = log;
    this.output = '';
    this.code = undefined;
    this.process = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe', ...Array(outputs).fill('pipe')],
    });
    const file = createWriteStream(log, { flags: 'a' });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.on('data', (data) => {
        this.output += data;
        file.write(data);
      });
    }
    running.add(this);
    this.ended = new Promise((resolve) => {
      const end = (code) => {
        this.code = code;
        running.delete(this);
        file.end();
        resolve(code);
      };
      // 'close', not 'exit': all output has arrived.
      this.process.on('close', (code, signal) => end(code ?? signal));
      this.process.on('error', (error) => {
        this.output += `${error.message}\n`;
        end(`did not start: ${error.message}`);
      });
    });
  }

  get pid() {
    return this.process.pid;
  }

  get alive() {
    return this.code === undefined;
  }

  signal(signal) {
    if (this.alive) this.process.kill(signal);
  }

  /** Waits until the output matches; fails at once where the program ends first. */
  async says(pattern, within = 15_000) {
    let ended = false;
    await until(
      `${this.name} says ${pattern}`,
      () => {
        ended = !this.alive;
        return ended || this.output.match(pattern);
      },
      { within, show: () => this.tail(5) },
    );
    const match = this.output.match(pattern);
    if (!match) throw new Error(`${this.name} ended with ${this.code}:\n${this.tail(30)}`);
    return match;
  }

  /** Asks it to end, insists after `patience` ms; returns its exit code or signal. */
  async stop(patience = 5_000) {
    if (this.alive) {
      this.signal('SIGTERM');
      const timer = setTimeout(() => this.signal('SIGKILL'), patience);
      await this.ended;
      clearTimeout(timer);
    }
    return this.code;
  }

  /** Ends it the hard way and waits for that. */
  async kill() {
    this.signal('SIGKILL');
    await this.ended;
  }

  /** The last lines of its output. */
  tail(lines = 40) {
    return this.output.trimEnd().split('\n').slice(-lines).join('\n');
  }
}
