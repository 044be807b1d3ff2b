/**
 * The one text of WHEP that is neither JSON nor opaque: the trickle fragment. Session descriptions
 * themselves are never edited here.
 */

/** What a trickle fragment needs from the local description. */
export interface IceIdentity {
  readonly ufrag: string;
  readonly pwd: string;
  /** The `m=` line that carries the bundle, without `m=`, e.g. `video 9 UDP/TLS/RTP/SAVPF 96`. */
  readonly media: string;
  readonly mid: string;
  /** The mids of `a=group:BUNDLE`, in order; empty without a bundle. */
  readonly bundle: readonly string[];
}

/** Reads the ICE identity of the first media section; `null` where the description has none. */
export function iceIdentity(sdp: string): IceIdentity | null {
  const lines = sdp.split(/\r?\n/);
  const first = lines.findIndex((line) => line.startsWith("m="));
  if (first < 0) return null;
  const next = lines.findIndex((line, at) => at > first && line.startsWith("m="));
  const section = lines.slice(first, next < 0 ? undefined : next);
  const session = lines.slice(0, first);
  const ufrag = attribute(section, "ice-ufrag") ?? attribute(session, "ice-ufrag");
  const pwd = attribute(section, "ice-pwd") ?? attribute(session, "ice-pwd");
  const mid = attribute(section, "mid");
  if (ufrag === null || pwd === null || mid === null) return null;
  const group = attribute(session, "group") ?? "";
  return {
    ufrag,
    pwd,
    media: (section[0] ?? "").slice(2),
    mid,
    bundle: group.startsWith("BUNDLE ") ? group.slice(7).split(" ") : [],
  };
}

/**
 * The body of a trickle PATCH, `application/trickle-ice-sdpfrag` (RFC 8840 §9, RFC 9725 §4.3.1).
 *
 * `candidates` are candidate attributes without `a=`; `complete` adds the end-of-candidates mark.
 */
export function trickleFragment(ice: IceIdentity, candidates: readonly string[], complete: boolean): string {
  const lines = [
    ...(ice.bundle.length > 0 ? [`a=group:BUNDLE ${ice.bundle.join(" ")}`] : []),
    `m=${ice.media}`,
    `a=mid:${ice.mid}`,
    `a=ice-ufrag:${ice.ufrag}`,
    `a=ice-pwd:${ice.pwd}`,
    ...candidates.map((candidate) => `a=${candidate}`),
    ...(complete ? ["a=end-of-candidates"] : []),
  ];
  return `${lines.join("\r\n")}\r\n`;
}

function attribute(lines: readonly string[], name: string): string | null {
  const prefix = `a=${name}:`;
  const line = lines.find((candidate) => candidate.startsWith(prefix));
  return line === undefined ? null : line.slice(prefix.length).trim();
}
