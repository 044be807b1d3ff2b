// What the kernel says of a process.

import { readFile, readdir } from 'node:fs/promises';

/** CPU seconds that a process has used, user and system. */
export async function cpuSeconds(pid) {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // After the name in parentheses, utime and stime are fields 14 and 15, in ticks of 10 ms.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Resident KiB, threads and open files (sockets are among these). */
export async function holdings(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const number = (name) => Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))[1]);
  const files = await readdir(`/proc/${pid}/fd`);
  return { residentKb: number('VmRSS'), threads: number('Threads'), files: files.length };
}
