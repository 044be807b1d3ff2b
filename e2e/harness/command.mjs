// The commands of operators, as they type them.

import { spawn } from 'node:child_process';

import { part } from './parts.mjs';

/** How long a command may take. `doctor` listens to each camera for a while. */
const PATIENCE = 60_000;

/**
 * Runs `manifold <words>` to its end; never fails because of its exit code.
 *
 * @param {string} words as they are typed, without quotes in them
 * @param {{ url?: string, token?: string, cwd?: string, env?: Record<string, string> }} options the server that
 *   is asked
 * @returns {Promise<{ code: number, out: string, err: string, text: string, json: any }>}
 */
export async function manifold(words, { url, token, cwd, env = {} } = {}) {
  const asked = { ...(url && { MANIFOLD_URL: url }), ...(token && { MANIFOLD_TOKEN: token }) };
  const child = spawn(part('manifold'), words.split(' ').filter(Boolean), {
    cwd,
    env: { ...process.env, ...asked, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: PATIENCE,
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  const code = await new Promise((ended, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => ended(code ?? signal));
  });
  let json;
  try {
    json = JSON.parse(out);
  } catch {
    json = undefined;
  }
  return { code, out, err, text: out + err, json };
}
