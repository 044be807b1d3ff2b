// Waiting for a condition: poll it with a deadline, never sleep and hope.

/** Resolves after `ms` milliseconds. For pacing what a test sends, not for synchronisation. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Polls `probe` until it returns something truthy, and returns that.
 *
 * @template T
 * @param {string} what what is waited for, as a clause: "the picture plays"
 * @param {() => T | Promise<T>} probe returns a falsy value or throws while it is not so yet
 * @param {{ within?: number, every?: number, show?: () => unknown }} [options] milliseconds;
 *   `show` tells the last state for the error
 * @returns {Promise<T>}
 */
export async function until(what, probe, { within = 15_000, every = 50, show } = {}) {
  const deadline = Date.now() + within;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) break;
    await pause(every);
  }
  const seen = show ? await Promise.resolve(show()).catch((error) => error) : last;
  throw new Error(`not within ${within / 1000} s: ${what}; last seen: ${describe(seen)}`);
}

/**
 * Polls `probe` for `ms` milliseconds and fails as soon as it returns something falsy.
 *
 * @param {string} what what must hold all the while
 * @param {() => unknown} probe
 * @param {number} ms
 */
export async function holds(what, probe, ms, every = 100) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const value = await probe();
    if (!value) throw new Error(`did not hold for ${ms / 1000} s: ${what}; got ${describe(value)}`);
    await pause(every);
  }
}

function describe(value) {
  if (value instanceof Error) return value.message;
  const text = JSON.stringify(value);
  return text && text.length > 2000 ? `${text.slice(0, 2000)}…` : text;
}
