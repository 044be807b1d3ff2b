// The shell of the old camera system's runbook, word for word: `docker` is a program that does to the server and
// its store what was done to containers.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** How long one snippet may take. */
const PATIENCE = 60_000;

/**
 * `docker exec <container> valkey-cli …` is redis-cli, containers `whip-pusher-<camera>` are the pullers, which
 * `docker stop` ends, and `docker logs` is the log. Of everything else it says nothing and does nothing.
 */
const DOCKER = `#!/bin/sh
command=$1
shift
case $command in
  exec) shift 2; exec redis-cli -p "$STORE_PORT" "$@" ;;
  ps)
    wanted=whip-pusher
    for word in "$@"; do case $word in name=*) wanted=\${word#name=} ;; esac; done
    curl -s "$MANIFOLD_URL/api/v1/cameras" |
      jq -r --arg wanted "$wanted" '.cameras[] | select(.pullers > 0) | "whip-pusher-" + .id | select(contains($wanted))' ;;
  stop) for name in "$@"; do curl -s -X DELETE "$MANIFOLD_URL/ingress/$name" >/dev/null && echo "$name"; done ;;
  logs) cat "$MANIFOLD_LOG" ;;
esac
`;

/** A shell in which the runbook's commands reach `manifold` and `redis`. */
export class OldShell {
  /**
   * @param {import('./world.mjs').World} world
   * @param {import('./manifold.mjs').Manifold} manifold
   * @param {import('./redis.mjs').Redis} redis
   */
  constructor(world, manifold, redis) {
    const bin = world.file('old-bin');
    mkdirSync(bin, { recursive: true });
    writeFileSync(`${bin}/docker`, DOCKER, { mode: 0o755 });
    writeFileSync(`${bin}/docker-compose`, '#!/bin/sh\nexit 0\n', { mode: 0o755 });
    this.manifold = manifold;
    this.cwd = world.folder;
    this.env = {
      ...process.env,
      PATH: `${bin}:${process.env.PATH}`,
      STORE_PORT: `${redis.port}`,
      MANIFOLD_URL: manifold.url,
      MANIFOLD_LOG: manifold.file('manifold.log'),
    };
  }

  /** Runs a snippet of the runbook; what it prints. The ports of the old services are those of this server. */
  async run(snippet) {
    const { host } = new URL(this.manifold.url);
    const text = snippet.replaceAll(/localhost:(8086|7880)/g, host);
    const { stdout } = await run('bash', ['-c', text], { cwd: this.cwd, env: this.env, timeout: PATIENCE });
    return stdout.trim();
  }

  /** The lines of what it prints. */
  async lines(snippet) {
    const text = await this.run(snippet);
    return text === '' ? [] : text.split('\n');
  }
}
