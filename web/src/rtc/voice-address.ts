/**
 * Where the voice server is: from a person's setting, or from the page's own address.
 *
 * Settings were written by hand for years: `localhost:8080`, `ws://host:8080/ws`, `https://host:8443`.
 * All of them name the same server here.
 */

/** The port that speaks plain HTTP unless settings say otherwise. */
const PLAIN_PORT = "8080";
/** The port that speaks HTTPS unless settings say otherwise. */
const SECURE_PORT = "8443";

/** A page, as far as addresses depend on it. */
export interface PageFacts {
  /** `https:` or `http:`. */
  readonly protocol: string;
}

/** One voice server. */
export class VoiceAddress {
  /** Without query and fragment, ending in `/`, over `http:` or `https:`. */
  readonly base: URL;

  constructor(base: URL) {
    this.base = base;
  }

  /** The WebSocket; `token` where the server asks for one. */
  socket(token = ""): string {
    const url = this.at("ws");
    url.protocol = this.isSecure ? "wss:" : "ws:";
    if (token !== "") url.searchParams.set("token", token);
    return url.href;
  }

  get isSecure(): boolean {
    return this.base.protocol === "https:";
  }

  /** An address below the server's. */
  at(path: string): URL {
    return new URL(path, this.base);
  }

  /** The same machine by HTTPS. */
  secure(port: number | string = SECURE_PORT): VoiceAddress {
    const url = new URL(this.base);
    url.protocol = "https:";
    if (!this.isSecure) url.port = String(port);
    return new VoiceAddress(url);
  }

  /** Whether a page may not open this server's WebSocket: plain traffic from a page that came by HTTPS. */
  isMixedIn(page: PageFacts): boolean {
    return page.protocol === "https:" && !this.isSecure && !isLoopback(this.base.hostname);
  }
}

/** The server that sent a page, also below a proxy's path: `…/talk` and `…/` are both of `…/`. */
export function addressOfPage(href: string): VoiceAddress {
  return new VoiceAddress(new URL(".", withoutSearch(href)));
}

/** The server that sent the cards' script, or `null` where another one did. */
export function addressOfScript(href: string): VoiceAddress | null {
  const url = withoutSearch(href);
  if (!url.pathname.endsWith("/cards/manifold-cards.js") || !/^https?:$/.test(url.protocol)) return null;
  return new VoiceAddress(new URL("..", url));
}

/**
 * Reads a `server_url`. Without a scheme the page's own is meant, except that a page that came by HTTPS
 * cannot use the plain port: the secure one takes its place.
 *
 * Throws an `Error` with a sentence for people.
 */
export function addressFrom(setting: string, page: PageFacts): VoiceAddress {
  const words = setting.trim();
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(words);
  const url = parsed(hasScheme ? words : `http://${words.replace(/^\/\//, "")}`);
  if (words === "" || url === null || url.hostname === "") {
    throw new Error(`server_url “${setting}” is no address; write it like http://192.168.1.20:8080 or https://192.168.1.20:8443.`);
  }
  if (!["http:", "https:", "ws:", "wss:"].includes(url.protocol)) {
    throw new Error(`server_url “${setting}” begins with ${url.protocol}//; it has to be http://, https://, ws:// or wss://.`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new Error("server_url must not contain a user name or password.");
  }
  const base = new URL(`${hasScheme ? httpOf(url.protocol) : "http:"}//${url.host}${folderOf(url.pathname)}`);
  if (!hasScheme && page.protocol === "https:" && !isLoopback(base.hostname)) secureInPlace(base);
  return new VoiceAddress(base);
}

function parsed(words: string): URL | null {
  try {
    return new URL(words);
  } catch {
    return null;
  }
}

function secureInPlace(url: URL): void {
  const { port } = url;
  url.protocol = "https:";
  url.port = port === PLAIN_PORT ? SECURE_PORT : port;
}

function httpOf(protocol: string): string {
  return protocol === "https:" || protocol === "wss:" ? "https:" : "http:";
}

/** `/voice/ws` and `/voice` as `/voice/`. */
function folderOf(pathname: string): string {
  const trimmed = pathname.replace(/\/+$/, "").replace(/\/ws$/, "");
  return `${trimmed}/`;
}

function withoutSearch(href: string): URL {
  const url = new URL(href);
  url.search = "";
  url.hash = "";
  return url;
}

/** Plain traffic to these is allowed from every page (W3C Secure Contexts §3.1). */
function isLoopback(hostname: string): boolean {
  return /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/i.test(hostname);
}
