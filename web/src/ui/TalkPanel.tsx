/** The talk room beside the wall. Its code is fetched when it is first opened. */

import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { announce } from "../state/announce";
import { CloseIcon } from "./icons";
import type { RoomViewProps } from "./TalkRoomView";

/** Whether the room is open beside the wall. */
export const talkOpen = signal(false);

const Room = signal<ComponentType<RoomViewProps> | null>(null);
const failed = signal(false);

const BUTTON_ID = "talk-toggle";

export function toggleTalk(): void {
  talkOpen.value = !talkOpen.value;
  announce(talkOpen.value ? "Talk: open" : "Talk: closed");
  if (talkOpen.value) void load();
  else document.getElementById(BUTTON_ID)?.focus();
}

/** For the button that opens the room: closing gives it the focus back. */
export const talkToggleId = BUTTON_ID;

async function load(): Promise<void> {
  failed.value = false;
  try {
    Room.value ??= (await import("./TalkRoomView")).TalkRoomView;
  } catch {
    // The server was replaced by another version, or is away.
    failed.value = true;
  }
}

export function TalkPanel() {
  if (!talkOpen.value) return null;
  const View = Room.value;
  return (
    <aside class="talk-panel" aria-labelledby="talk-panel-title">
      <header class="talk-panel-header">
        <h2 id="talk-panel-title">Talk</h2>
        <a href="./talk" target="_blank" rel="noopener">
          Own page
        </a>
        <button type="button" class="icon-button" onClick={toggleTalk} aria-label="Close talk" title="Close (T)">
          <CloseIcon />
        </button>
      </header>
      {View !== null && <View />}
      {failed.value && <p class="talk-panel-failed">The room could not be loaded. Reload the page.</p>}
    </aside>
  );
}
