/** The talk page: the room, and nothing else to look at. */

import { useSignal } from "@preact/signals";
import { useLayoutEffect } from "preact/hooks";
import logo from "../assets/logo.svg";
import { isTalkKey } from "../rtc/voice-switch";
import { announcement } from "../state/announce";
import { theme, toggleTheme } from "../state/settings";
import type { TalkRoom } from "../state/talk";
import { ThemeIcon, WallIcon } from "./icons";
import { TalkRoomView } from "./TalkRoomView";

/** Whether another page shows this one, as Home Assistant's sidebar does: the cameras would not be shown there. */
const isFramed = window.top !== window;

export function TalkPage() {
  const room = useSignal<TalkRoom | null>(null);
  usePageKey(room.value);
  const otherTheme = theme() === "dark" ? "Light theme" : "Dark theme";
  return (
    <div class="talk-page">
      <header class="header">
        <div class="brand">
          <img src={logo} alt="" width="26" height="26" />
          <h1>Talk</h1>
        </div>
        <div class="header-actions">
          {!isFramed && (
            <a class="icon-button" href="./" aria-label="Cameras" title="Cameras">
              <WallIcon />
            </a>
          )}
          <button type="button" class="icon-button" onClick={toggleTheme} aria-label={otherTheme} title={otherTheme}>
            <ThemeIcon dark={theme() === "dark"} />
          </button>
        </div>
      </header>
      <main class="talk-main">
        <TalkRoomView onRoom={(made) => (room.value = made)} />
      </main>
      <p class="visually-hidden" role="log" aria-live="polite">
        {announcement.value}
      </p>
    </div>
  );
}

/** Where no control has the focus, Space and Enter talk. */
function usePageKey(room: TalkRoom | null): void {
  // As soon as it is shown, so that no press is lost between its first picture and what follows it.
  useLayoutEffect(() => {
    if (room === null) return undefined;
    const end = new AbortController();
    const { signal } = end;
    const isFree = (target: EventTarget | null): boolean => target === document.body || target === document.documentElement;
    const handleDown = (event: KeyboardEvent): void => {
      if (!isTalkKey(event.key) || event.ctrlKey || event.metaKey || event.altKey || !isFree(event.target)) return;
      event.preventDefault();
      room.talk.handleDown(`page key ${event.key}`);
    };
    addEventListener("keydown", handleDown, { signal });
    addEventListener("keyup", (event) => room.talk.handleUp(`page key ${event.key}`), { signal });
    return () => end.abort();
  }, [room]);
}
