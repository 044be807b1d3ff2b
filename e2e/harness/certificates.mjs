// Certificates: a browser that trusts one, and files that openssl has made.

import { execFile } from 'node:child_process';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { part } from './parts.mjs';

const run = promisify(execFile);

/**
 * A Chromium as a person has it who installed `authority` (PEM) and has a microphone: what a browser is
 * started with as its `program`.
 *
 * @param {import('./world.mjs').World} world
 */
export async function chromiumThatTrusts(world, authority) {
  const home = world.file('home');
  const store = `sql:${join(home, '.pki/nssdb')}`;
  await mkdir(join(home, '.pki/nssdb'), { recursive: true });
  const file = world.file('installed.crt');
  await writeFile(file, authority);
  await run(part('certutil'), ['-d', store, '-N', '--empty-password']);
  await run(part('certutil'), ['-d', store, '-A', '-n', 'manifold', '-t', 'C,,', '-i', file]);
  const program = world.file('chromium');
  const flags = '--use-fake-device-for-media-stream --use-fake-ui-for-media-stream';
  const script = `#!/bin/sh\nHOME='${home}' exec '${part('chromium')}' ${flags} "$@"\n`;
  await writeFile(program, script, { mode: 0o755 });
  return program;
}

/** Puts a certificate for `name` of no authority, and its key, where `certificate` and `key` say, as certbot does. */
export async function putCertificate({ certificate, key }, name) {
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30'];
  await run('openssl', ['req', '-x509', ...kind, ...subject, '-out', `${certificate}.new`, '-keyout', `${key}.new`]);
  await rename(`${certificate}.new`, certificate);
  await rename(`${key}.new`, key);
}

/** A certificate authority: the file that others trust, and what it signs. */
export class Authority {
  static async make(world, name) {
    const authority = new Authority();
    Object.assign(authority, { world, name, file: world.file(`${name}.crt`), key: world.file(`${name}.key`) });
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30'];
    const subject = ['-subj', `/CN=${name}`];
    await run('openssl', ['req', '-x509', ...kind, ...subject, '-out', authority.file, '-keyout', authority.key]);
    return authority;
  }

  /** Files of a certificate for 127.0.0.1 and its key. */
  async sign(name) {
    const [certificate, key] = ['crt', 'key'].map((end) => this.world.file(`${name}.${end}`));
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30'];
    const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
    const constraints = ['-addext', 'basicConstraints=critical,CA:FALSE'];
    const by = ['-CA', this.file, '-CAkey', this.key];
    await run('openssl', ['req', '-x509', ...kind, ...names, ...constraints, ...by, '-out', certificate, '-keyout', key]);
    return { certificate, key };
  }
}
