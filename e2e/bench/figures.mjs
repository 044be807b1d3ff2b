// What a benchmark hands to `cargo xtask bench`: one line of JSON with figures, and what plots need.

/**
 * @param {string} name
 * @param {string} unit
 * @param {number} value
 * @param {number} [target] what the value has to stay under
 */
export function figure(name, unit, value, target) {
  return { name, unit, value, target: target ?? null, pass: target === undefined ? null : value < target };
}

/** The smallest of the values that `share` of them do not exceed; 0 of none. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}

/** Runs a benchmark in a world of its own, prints what it found, ends everything. */
export async function benchmark(world, measure) {
  try {
    console.log(JSON.stringify(await measure(world)));
  } finally {
    await world.end();
  }
}

/** Settings under which a thousand viewers are let in. */
export const ROOM_FOR_ALL = {
  log: { level: 'warn' },
  quota: { total: 20_000 },
  sources: [{ id: 'TEST', name: 'Test', limit: 20_000 }],
};
