// Tokens as LiveKit's servers and clients write them: a JWT signed with HS256.

import { createHmac } from 'node:crypto';

/** A key as `[auth.keys]` of the config has it. */
export const KEY = { id: 'testkey', secret: 'a-secret-of-the-tests-with-more-than-32-characters' };

/**
 * A token for a room; claims given replace those of a good token.
 *
 * @param {string} room
 * @param {string} identity
 * @param {{ key?: typeof KEY, alg?: string, video?: object, exp?: number }} [changes]
 */
export function token(room, identity, { key = KEY, alg = 'HS256', video, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const body = {
    iss: key.id,
    sub: identity,
    nbf: now - 10,
    exp: now + 600,
    video: { roomJoin: true, room, canSubscribe: true, canPublish: false, ...video },
    ...claims,
  };
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${encode({ alg, typ: 'JWT' })}.${encode(body)}`;
  const signature = alg === 'none' ? '' : createHmac('sha256', key.secret).update(signed).digest('base64url');
  return `${signed}.${signature}`;
}
