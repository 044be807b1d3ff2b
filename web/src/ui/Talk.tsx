/** The talk room: the button, one's own voice, and the voices that can be heard. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Choice } from "../rtc/voice-receiver";
import { attachSwitch } from "../rtc/voice-switch";
import type { VoiceTrouble } from "../rtc/voice-trouble";
import { nowMs } from "../state/clock";
import type { TalkRoom, Voice } from "../state/talk";
import { counted, milliseconds, percent } from "./format";
import { MicrophoneIcon, SoundIcon } from "./icons";
import { Meter, useLevel } from "./Meter";
import { hearingWords, NO_MICROPHONE, type TalkWords, talkWords } from "./talk-words";
import "../styles/talk.css";

/** The room inside of whatever page shows it. */
export function Talk({ room }: { room: TalkRoom }) {
  return (
    <div class="talk" data-talking={room.talking.value.kind} data-hearing={room.hearing.value.kind}>
      <Entrance room={room} />
      <Speak room={room} />
      <Listen room={room} />
    </div>
  );
}

/** What keeps everybody out, before anything else is tried. */
function Entrance({ room }: { room: TalkRoom }) {
  const typed = useSignal("");
  const { isEnabled, needsToken } = room.settings.value;
  if (!isEnabled) return <p class="entrance">The voice relay of this server is switched off; voice.enabled in its settings switches it on.</p>;
  if (!needsToken || room.connection.value.kind === "open") return null;
  const submit = (event: Event): void => {
    event.preventDefault();
    room.useToken(typed.value.trim());
  };
  return (
    <form class="entrance" onSubmit={submit}>
      <label for="voice-token">{room.token.value === "" ? "This server asks for a token." : "The token was not taken, or the server is away."}</label>
      <input
        id="voice-token"
        type="password"
        autocomplete="off"
        value={typed.value}
        onInput={(event) => (typed.value = event.currentTarget.value)}
      />
      <button type="submit" class="button">
        Use it
      </button>
    </form>
  );
}

function Speak({ room }: { room: TalkRoom }) {
  return (
    <section class="speak" aria-label="Talk">
      <TalkButton room={room} />
      <p class="speak-hint" id="talk-hint">
        {wordsOf(room).hint}
      </p>
      <Trouble room={room} />
      {room.isSecure && (
        <div class="speak-settings">
          <ModeSwitch room={room} />
          <MicrophoneChoice room={room} />
        </div>
      )}
    </section>
  );
}

function TalkButton({ room }: { room: TalkRoom }) {
  const ref = useLevel<HTMLButtonElement>(() => room.ownLevel());
  useLayoutEffect(() => (ref.current === null ? undefined : attachSwitch(ref.current, room.talk)), [room]);
  const state = room.talking.value;
  return (
    <button
      type="button"
      class="talk-button"
      ref={ref}
      aria-pressed={state.kind === "on-air" || state.kind === "opening" || state.kind === "interrupted"}
      aria-describedby="talk-hint"
    >
      <span class="talk-halo" aria-hidden="true" />
      <span class="talk-face">
        <MicrophoneIcon off={!room.isSecure || state.kind === "failed"} />
        <span class="talk-label">{wordsOf(room).label}</span>
      </span>
    </button>
  );
}

function wordsOf(room: TalkRoom): TalkWords {
  return room.isSecure ? talkWords(room.talking.value, room.mode.value) : NO_MICROPHONE;
}

function ModeSwitch({ room }: { room: TalkRoom }) {
  return (
    <fieldset class="segments">
      <legend class="visually-hidden">How the button works</legend>
      {(["hold", "latch"] as const).map((mode) => (
        <label key={mode}>
          <input type="radio" name="talk-mode" checked={room.mode.value === mode} onChange={() => (room.mode.value = mode)} />
          <span>{mode === "hold" ? "Hold" : "Press on, press off"}</span>
        </label>
      ))}
    </fieldset>
  );
}

function MicrophoneChoice({ room }: { room: TalkRoom }) {
  if (room.microphones.value.length === 0) return null;
  return (
    <label class="setting">
      <span class="setting-name">Microphone</span>
      <select value={room.microphoneId.value} onChange={(event) => (room.microphoneId.value = event.currentTarget.value)}>
        <option value="">Chosen by the system</option>
        {room.microphones.value.map(({ id, label }) => (
          <option key={id} value={id}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Why one cannot talk; on plain HTTP it is said before anybody presses in vain. */
function Trouble({ room }: { room: TalkRoom }) {
  const state = room.talking.value;
  const trouble = "trouble" in state ? state.trouble : null;
  if (!room.isSecure) return <InsecureNote room={room} />;
  return <div role="alert">{trouble !== null && <TroubleNote trouble={trouble} />}</div>;
}

function TroubleNote({ trouble }: { trouble: VoiceTrouble }) {
  return (
    <div class="note" data-trouble={trouble.kind}>
      <p class="note-title">{trouble.headline}</p>
      <p>{trouble.sentence}</p>
    </div>
  );
}

function InsecureNote({ room }: { room: TalkRoom }) {
  const door = room.secureDoor.value;
  return (
    <div class="note" data-trouble="insecure" role="status">
      <p class="note-title">The microphone is off on plain HTTP</p>
      <p>Browsers hand a microphone to HTTPS pages only. Listening works here.</p>
      {door === null ? (
        <p>This server has no HTTPS. Its settings “tls” switch it on.</p>
      ) : (
        <ol class="note-steps">
          {door.caUrl !== null && (
            <li>
              Once on each phone or computer: install <a href={door.caUrl}>the server’s certificate</a>, or accept the warning of the next step.
            </li>
          )}
          <li>
            <a class="note-action" href={door.address.at(location.pathname.endsWith("/talk") ? "talk" : "").href}>
              Open this page by HTTPS
            </a>
          </li>
        </ol>
      )}
    </div>
  );
}

function Listen({ room }: { room: TalkRoom }) {
  const voices = room.voices.value;
  return (
    <section class="listen" aria-labelledby="listen-title">
      <header class="listen-header">
        <h2 id="listen-title">Listen</h2>
        <p class="listen-state" role="status">
          <span class="dot" aria-hidden="true" />
          {hearingWords(room.hearing.value, room.connection.value)}
        </p>
      </header>
      {room.hearing.value.kind === "blocked" && (
        <button type="button" class="unlock" onClick={() => room.unlock()}>
          <SoundIcon muted={false} /> Tap to hear
        </button>
      )}
      <fieldset class="voices">
        <legend class="visually-hidden">Whom to hear</legend>
        <Row room={room} choice={{ kind: "newest" }} name="Newest voice" detail="Automatically" />
        <Row room={room} choice={{ kind: "nobody" }} name="Nobody" detail="Quiet" />
        <p class="voices-count" id="voices-count">
          {voices.length === 0 ? "Nobody speaks at the moment" : counted(voices.length, "live voice", "live voices")}
        </p>
        {voices.map((voice) => (
          <VoiceRow key={voice.streamId} room={room} voice={voice} />
        ))}
        <Departed room={room} />
      </fieldset>
      <Volume room={room} />
      <Figures room={room} />
    </section>
  );
}

function VoiceRow({ room, voice }: { room: TalkRoom; voice: Voice }) {
  const hearing = room.hearing.value;
  const isHeard = "streamId" in hearing && hearing.streamId === voice.streamId;
  const lasts = elapsed(nowMs.value - voice.sinceMs);
  return (
    <Row
      room={room}
      choice={{ kind: "stream", streamId: voice.streamId }}
      name={voice.isOwn ? "You" : voice.name}
      detail={isHeard && hearing.kind === "playing" ? `${lasts} · hearing` : lasts}
      isOwn={voice.isOwn}
      level={voice.isOwn ? () => room.ownLevel() : () => room.level(voice.streamId)}
    />
  );
}

/** A chosen voice that is away stays in the list, so that one sees what is waited for. */
function Departed({ room }: { room: TalkRoom }) {
  const choice = room.choice.value;
  if (choice.kind !== "stream" || room.voices.value.some((voice) => voice.streamId === choice.streamId)) return null;
  return <Row room={room} choice={choice} name="The chosen voice" detail="Silent; heard again when it returns" />;
}

interface RowProps {
  readonly room: TalkRoom;
  readonly choice: Choice;
  readonly name: string;
  readonly detail: string;
  readonly isOwn?: boolean;
  readonly level?: () => number;
}

function Row({ room, choice, name, detail, isOwn = false, level }: RowProps) {
  const streamId = choice.kind === "stream" ? choice.streamId : choice.kind;
  return (
    <label class="voice" data-voice={streamId}>
      <input
        type="radio"
        name="listen"
        checked={isSame(room.choice.value, choice)}
        disabled={isOwn}
        onChange={() => (room.choice.value = choice)}
      />
      <span class="voice-name">{name}</span>
      <span class="voice-detail number">{detail}</span>
      {level !== undefined && <Meter level={level} />}
    </label>
  );
}

function Volume({ room }: { room: TalkRoom }) {
  const beforeMute = useSignal(1);
  const isMuted = room.volume.value === 0;
  const toggle = (): void => {
    if (isMuted) room.volume.value = beforeMute.value;
    else [beforeMute.value, room.volume.value] = [room.volume.value, 0];
  };
  return (
    <div class="volume">
      <button type="button" class="icon-button" onClick={toggle} aria-label={isMuted ? "Sound on" : "Sound off"} aria-pressed={isMuted}>
        <SoundIcon muted={isMuted} />
      </button>
      <input
        type="range"
        min="0"
        max="100"
        aria-label="Volume"
        value={Math.round(100 * room.volume.value)}
        onInput={(event) => (room.volume.value = Number(event.currentTarget.value) / 100)}
      />
      <span class="number">{percent(Math.round(100 * room.volume.value))}</span>
    </div>
  );
}

function Figures({ room }: { room: TalkRoom }) {
  const { latencyMs, rttMs, concealedPercent } = room.figures.value;
  const rows = [
    ["latency", "Server to ear", milliseconds(latencyMs), "Half the round trip, the jitter buffer and the sound output, measured"],
    ["rtt", "Round trip", milliseconds(rttMs), "To the server and back"],
    ["concealed", "Made up", percent(concealedPercent), "Sound that was invented in place of lost packets"],
  ] as const;
  return (
    <dl class="voice-figures">
      {rows.map(([figure, name, value, meaning]) => (
        <div key={figure} title={meaning}>
          <dt>{name}</dt>
          <dd class="number" data-figure={figure}>
            {value}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** Owns the sound of a room from here on; to be put once beside it. */
export function useRoom(makeRoom: (audio: HTMLAudioElement) => TalkRoom) {
  const room = useSignal<TalkRoom | null>(null);
  const audio = useRef<HTMLAudioElement>(null);
  useEffect(() => {
    if (audio.current === null) return undefined;
    const made = makeRoom(audio.current);
    made.start();
    room.value = made;
    return () => made.close();
  }, []);
  return { room: room.value, audio };
}

function isSame(a: Choice, b: Choice): boolean {
  return a.kind === b.kind && (a.kind !== "stream" || (b.kind === "stream" && a.streamId === b.streamId));
}

function elapsed(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
