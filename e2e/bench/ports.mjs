// Ports that are free: for programs that cannot be told to take any.

import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

/** @param {'tcp' | 'udp'} kind */
export async function freePort(kind) {
  const server = kind === 'tcp' ? createServer() : createSocket('udp4');
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    if (kind === 'tcp') server.listen(0, '127.0.0.1', resolve);
    else server.bind(0, '127.0.0.1', resolve);
  });
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
