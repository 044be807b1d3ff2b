/**
 * What the server, or the way to it, said no with.
 *
 * Every refusal becomes a `Refusal`: the status, a machine-readable code and one sentence a person
 * can read. It does not decide what happens next; `session.ts` does.
 */

/** The members of a refusal, as found in the answer's body and headers. */
export interface RefusalFacts {
  /** HTTP status, or 0 where no answer came at all. */
  readonly status: number;
  /** Machine-readable, e.g. `RATE_LIMIT_EXCEEDED`; empty where the server gave none. */
  readonly code: string;
  /** One sentence in English. */
  readonly sentence: string;
  /** The same in Arabic, where the server gives it. */
  readonly sentenceAr: string;
  /** How long to wait before trying again; `null` where the server did not say. */
  readonly retryAfterS: number | null;
}

/** A request that was answered with anything but success, or not answered. */
export class Refusal extends Error implements RefusalFacts {
  readonly status: number;
  readonly code: string;
  readonly sentence: string;
  readonly sentenceAr: string;
  readonly retryAfterS: number | null;

  constructor(facts: RefusalFacts) {
    super(facts.sentence);
    this.name = "Refusal";
    this.status = facts.status;
    this.code = facts.code;
    this.sentence = facts.sentence;
    this.sentenceAr = facts.sentenceAr;
    this.retryAfterS = facts.retryAfterS;
  }
}

/** The server did not answer: it is down, restarting, or the network is. */
export function unreachable(): Refusal {
  return new Refusal({
    status: 0,
    code: "NETWORK",
    sentence: "The server cannot be reached.",
    sentenceAr: "",
    retryAfterS: null,
  });
}

/** Anything thrown, as a refusal: a foreign exception keeps its message. */
export function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new Refusal({ status: 0, code: "BROWSER", sentence: message, sentenceAr: "", retryAfterS: null });
}

/**
 * Reads a refusal from an answer.
 *
 * Understands `application/problem+json` (RFC 9457: `title`, `detail`) and the API's
 * `{error: {code, message_en, message_ar, retry_after}}`; anything else keeps the status alone.
 */
export async function refusalFrom(answer: Response): Promise<Refusal> {
  const body = await bodyOf(answer);
  const error = isRecord(body["error"]) ? body["error"] : body;
  const sentence =
    text(error["message_en"]) || text(error["message"]) || text(error["detail"]) || text(error["title"]);
  return new Refusal({
    status: answer.status,
    code: text(error["code"]),
    sentence: asSentence(sentence) || sentenceFor(answer.status),
    sentenceAr: text(error["message_ar"]),
    retryAfterS:
      seconds(error["retry_after"]) ?? seconds(error["retry_in_s"]) ?? seconds(answer.headers.get("Retry-After")),
  });
}

/** What a status means here, for answers that carry no words of their own. */
export function sentenceFor(status: number): string {
  const known: Record<number, string> = {
    401: "The server asks for a key, or the one it was given has expired.",
    403: "This key may not watch this camera.",
    404: "There is no such camera.",
    406: "This browser and the server share no codec for this camera.",
    409: "The camera has no picture at the moment.",
    429: "All places of this source are taken.",
    503: "The server is stopping or overloaded.",
  };
  return known[status] ?? `The server answered with status ${status}.`;
}

/** `the camera is off` as `The camera is off.`: servers write fragments, people read sentences. */
export function asSentence(words: string): string {
  const trimmed = words.trim();
  if (trimmed === "") return "";
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…؟]$/.test(capital) ? capital : `${capital}.`;
}

async function bodyOf(answer: Response): Promise<Record<string, unknown>> {
  try {
    const body: unknown = await answer.json();
    return isRecord(body) ? body : {};
  } catch {
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** A wait in seconds; a date (RFC 9110 §10.2.3 allows one) is not used by this server. */
function seconds(value: unknown): number | null {
  if (value === null || value === undefined || value === "") return null;
  const number = Number(value);
  return Number.isFinite(number) && number >= 0 ? number : null;
}
