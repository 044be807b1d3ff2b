/** The whole page. */

import { announcement } from "../state/announce";
import { camerasLoaded, keyNeeded, serverTrouble } from "../state/park";
import { view } from "../state/wall";
import { CameraList } from "./CameraList";
import { Header } from "./Header";
import { Help } from "./Help";
import { KeyPrompt } from "./KeyPrompt";
import { TalkPanel, talkOpen } from "./TalkPanel";
import { Wall } from "./Wall";
import { Walls } from "./Walls";

export function App() {
  return (
    <div class="page" data-view={view.value} data-talk={talkOpen.value ? "open" : undefined}>
      <Header />
      <div class="banners">
        <KeyPrompt />
        <ServerTrouble />
      </div>
      <CameraList />
      <Wall />
      <TalkPanel />
      <Walls />
      <Help />
      <p class="visually-hidden" role="log" aria-live="polite">
        {announcement.value}
      </p>
    </div>
  );
}

/** Only once the page was useful: before, the list says it. */
function ServerTrouble() {
  if (serverTrouble.value === "" || keyNeeded.value || !camerasLoaded.value) return null;
  return (
    <p class="banner" role="status">
      {serverTrouble.value} What is shown may be out of date; trying again.
    </p>
  );
}
