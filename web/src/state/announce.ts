/** What a screen reader is told: the latest change of state, one sentence at a time. */

import { signal } from "@preact/signals";

export const announcement = signal("");

export function announce(sentence: string): void {
  announcement.value = sentence;
}
