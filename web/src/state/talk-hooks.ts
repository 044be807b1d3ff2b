/** `window.manifold.talk()`: what the talk room knows, for scripts and tests. */

import type { TalkRoom } from "./talk";

export function startTalkHooks(room: TalkRoom): void {
  const hooks = window as unknown as { manifold?: Record<string, unknown> };
  hooks.manifold = { ...hooks.manifold, talk: () => room.report() };
}
