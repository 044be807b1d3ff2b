/**
 * The few texts of WHEP that are neither JSON nor opaque: the trickle fragment and the
 * `Link: rel="ice-server"` header. Session descriptions themselves are never edited here.
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

/** Most ICE servers taken from one answer: browsers slow down beyond four or five. */
const ICE_SERVERS_MAX = 4;

/** ICE servers of a `Link` header (RFC 9725 §4.6): `<turn:host>; rel="ice-server"; username="u"; credential="c"`. */
export function iceServersOf(link: string | null): RTCIceServer[] {
  const servers: RTCIceServer[] = [];
  for (const entry of linkEntries(link ?? "")) {
    if (entry.parameters.get("rel") !== "ice-server") continue;
    if (!/^(stun|stuns|turn|turns):/i.test(entry.target)) continue;
    const username = entry.parameters.get("username");
    const credential = entry.parameters.get("credential");
    servers.push({
      urls: entry.target,
      ...(username === undefined ? {} : { username }),
      ...(credential === undefined ? {} : { credential }),
    });
    if (servers.length === ICE_SERVERS_MAX) break;
  }
  return servers;
}

interface LinkEntry {
  readonly target: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** The entries of a `Link` header (RFC 8288 §3); a comma or semicolon inside quotes is text. */
function linkEntries(header: string): LinkEntry[] {
  const entries: LinkEntry[] = [];
  const entry = /<([^>]*)>((?:\s*;\s*[\w*-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",;]+))*)/g;
  for (const [, target = "", tail = ""] of header.matchAll(entry)) {
    entries.push({ target: target.trim(), parameters: linkParameters(tail) });
  }
  return entries;
}

function linkParameters(tail: string): Map<string, string> {
  const parameters = new Map<string, string>();
  const parameter = /;\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))/g;
  for (const [, name = "", quoted, bare] of tail.matchAll(parameter)) {
    parameters.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? bare ?? "");
  }
  return parameters;
}

function attribute(lines: readonly string[], name: string): string | null {
  const prefix = `a=${name}:`;
  const line = lines.find((candidate) => candidate.startsWith(prefix));
  return line === undefined ? null : line.slice(prefix.length).trim();
}
