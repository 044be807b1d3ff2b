/** Line icons, drawn on a 16 px grid in the colour of the text around them. */

import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      {children}
    </svg>
  );
}

export function CloseIcon() {
  return (
    <Icon>
      <path d="M4 4l8 8M12 4l-8 8" />
    </Icon>
  );
}

export function FullscreenIcon() {
  return (
    <Icon>
      <path d="M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10" />
    </Icon>
  );
}

export function FiguresIcon() {
  return (
    <Icon>
      <path d="M3 13V9M8 13V3M13 13V6.5" />
    </Icon>
  );
}

export function SoundIcon({ muted }: { muted: boolean }) {
  return (
    <Icon>
      <path d="M2 6.2h2.4L8 3.2v9.6L4.4 9.8H2z" />
      {muted ? <path d="M10.8 6l3.4 4M14.2 6l-3.4 4" /> : <path d="M10.5 5.8a3.2 3.2 0 010 4.4M12.4 3.9a6 6 0 010 8.2" />}
    </Icon>
  );
}

export function SearchIcon() {
  return (
    <Icon>
      <circle cx="7" cy="7" r="4.2" />
      <path d="M10.2 10.2L13.5 13.5" />
    </Icon>
  );
}

export function ThemeIcon({ dark }: { dark: boolean }) {
  return (
    <Icon>
      {dark ? (
        <>
          <circle cx="8" cy="8" r="3" />
          <path d="M8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M3.4 12.6l1-1M11.6 4.4l1-1" />
        </>
      ) : (
        <path d="M13.4 9.7A5.8 5.8 0 016.3 2.6a5.8 5.8 0 107.1 7.1z" />
      )}
    </Icon>
  );
}

export function HelpIcon() {
  return (
    <Icon>
      <path d="M5.8 6a2.2 2.2 0 114 1.3c-.7.8-1.8 1-1.8 2.3M8 12.3v.1" />
    </Icon>
  );
}

export function ViewersIcon() {
  return (
    <Icon>
      <path d="M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8z" />
      <circle cx="8" cy="8" r="1.9" />
    </Icon>
  );
}

export function MicrophoneIcon({ off = false }: { off?: boolean }) {
  return (
    <Icon>
      <rect x="5.8" y="1.8" width="4.4" height="7.6" rx="2.2" />
      <path d="M3.2 7.6a4.8 4.8 0 009.6 0M8 12.4v2M5.8 14.4h4.4" />
      {off && <path d="M2.2 2.2l11.6 11.6" />}
    </Icon>
  );
}

export function WallIcon() {
  return (
    <Icon>
      <path d="M2 3h5v4H2zM9 3h5v4H9zM2 9h5v4H2zM9 9h5v4H9z" />
    </Icon>
  );
}
