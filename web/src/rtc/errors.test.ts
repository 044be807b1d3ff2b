import { describe, expect, it } from "vitest";
import { asRefusal, asSentence, refusalFrom, unreachable } from "./errors";

function answer(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers });
}

describe("refusalFrom", () => {
  it("reads the quota answer in both languages", async () => {
    const error = { code: "RATE_LIMIT_EXCEEDED", message_en: "full.", message_ar: "ممتلئ.", retry_after: 12 };
    expect(await refusalFrom(answer(429, { error }))).toMatchObject({
      status: 429,
      code: "RATE_LIMIT_EXCEEDED",
      sentence: "Full.",
      sentenceAr: "ممتلئ.",
      retryAfterS: 12,
    });
  });

  it("reads problem details", async () => {
    const problem = { type: "about:blank", title: "Conflict", status: 409, detail: "the camera does not answer" };
    expect(await refusalFrom(answer(409, problem))).toMatchObject({
      code: "",
      sentence: "The camera does not answer.",
      retryAfterS: null,
    });
  });

  it.each(["", "<html>bad gateway</html>", "null", "[]", '{"error":7}', '{"detail":{}}'])(
    "makes a sentence of the status where the body is %j",
    async (body) => {
      const refusal = await refusalFrom(answer(403, body));
      expect(refusal).toMatchObject({ status: 403, sentence: "This key may not watch this camera.", sentenceAr: "" });
    },
  );

  it("takes the wait from the header where the body has none, and ignores one that is no number", async () => {
    expect((await refusalFrom(answer(503, "", { "Retry-After": "3" }))).retryAfterS).toBe(3);
    expect((await refusalFrom(answer(503, "", { "Retry-After": "soon" }))).retryAfterS).toBeNull();
    expect((await refusalFrom(answer(503, { retry_after: -4 }))).retryAfterS).toBeNull();
  });
});

it.each([
  ["the camera is off", "The camera is off."],
  ["Done!", "Done!"],
  ["  ", ""],
])("%j reads %j", (words, sentence) => {
  expect(asSentence(words)).toBe(sentence);
});

it("keeps a refusal as it is and the message of anything else", () => {
  const refusal = unreachable();
  expect(asRefusal(refusal)).toBe(refusal);
  expect(asRefusal(new Error("no such codec"))).toMatchObject({ status: 0, code: "BROWSER", sentence: "no such codec" });
});
