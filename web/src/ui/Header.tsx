/** The bar on top: name, totals, quotas, theme and help; and on narrow screens the choice of view. */

import logo from "../assets/logo.svg";
import type { SourceUsage, Usage } from "../api/wire";
import { cameras, totals } from "../state/park";
import { theme, toggleTheme } from "../state/settings";
import { view, wall } from "../state/wall";
import { sourceName } from "./format";
import { openHelp } from "./Help";
import { HelpIcon, MicrophoneIcon, ThemeIcon, WallIcon } from "./icons";
import { talkOpen, talkToggleId, toggleTalk } from "./TalkPanel";
import { openWalls } from "./Walls";

export function Header() {
  return (
    <header class="header">
      <div class="brand">
        <img src={logo} alt="" width="26" height="26" />
        <h1>Manifold</h1>
      </div>
      <ViewSwitch />
      <Totals />
      <div class="header-actions">
        <button type="button" class="icon-button" onClick={openWalls} aria-label="Walls" title="Walls (W)">
          <WallIcon />
        </button>
        <button
          type="button"
          class="icon-button"
          id={talkToggleId}
          onClick={toggleTalk}
          aria-pressed={talkOpen.value}
          aria-label="Talk"
          title="Talk (T)"
        >
          <MicrophoneIcon />
        </button>
        <button
          type="button"
          class="icon-button"
          onClick={toggleTheme}
          aria-label={theme() === "dark" ? "Light theme" : "Dark theme"}
          title={theme() === "dark" ? "Light theme" : "Dark theme"}
        >
          <ThemeIcon dark={theme() === "dark"} />
        </button>
        <button type="button" class="icon-button" onClick={openHelp} aria-label="Keyboard help" title="Keyboard help (?)">
          <HelpIcon />
        </button>
      </div>
    </header>
  );
}

function ViewSwitch() {
  return (
    <div class="view-switch" role="group" aria-label="View">
      <button type="button" aria-pressed={view.value === "list"} onClick={() => (view.value = "list")}>
        Cameras <span class="number">{cameras.value.length}</span>
      </button>
      <button type="button" aria-pressed={view.value === "wall"} onClick={() => (view.value = "wall")}>
        Wall <span class="number">{wall.value.length}</span>
      </button>
    </div>
  );
}

function Totals() {
  const known = totals.value;
  if (known === null) return <div class="totals" />;
  return (
    <div class="totals">
      <Total label="Viewers" value={known.viewers} hook="viewers" />
      <Total label="Streams" value={known.streams} hook="streams" />
      <ul class="quotas" aria-label="Quota used by source">
        {known.sources.map((usage) => (
          <Quota key={usage.source} usage={usage} />
        ))}
        <Quota usage={{ source: "Total", ...known.total }} />
      </ul>
    </div>
  );
}

function Total({ label, value, hook }: { label: string; value: number; hook: string }) {
  return (
    <div class="total">
      <span class="total-value number" data-total={hook}>
        {value}
      </span>
      <span class="total-label">{label}</span>
    </div>
  );
}

function Quota({ usage }: { usage: SourceUsage }) {
  return (
    <li class="quota" data-quota={usage.source} data-level={level(usage)}>
      <span class="quota-name">{sourceName(usage.source)}</span>
      <span class="quota-count number">
        {usage.current}
        <span class="quota-limit">/{usage.limit}</span>
      </span>
      <meter class="quota-meter" min={0} max={Math.max(1, usage.limit)} value={usage.current} aria-hidden="true" />
    </li>
  );
}

/** From 80 % a quota asks for attention, at 100 % it turns viewers away. */
function level(usage: Usage): "calm" | "high" | "full" {
  if (usage.limit > 0 && usage.current >= usage.limit) return "full";
  return usage.current >= 0.8 * usage.limit && usage.current > 0 ? "high" : "calm";
}
