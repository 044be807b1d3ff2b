import { expect, it } from "vitest";
import { subjectOf } from "./key";

const token = (claims: unknown): string => {
  const bytes = new TextEncoder().encode(JSON.stringify(claims));
  const base64 = btoa(String.fromCharCode(...bytes));
  return `e30.${base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}.signature`;
};

it.each([
  [token({ sub: "amal" }), "amal"],
  [token({ sub: "أمل ÿ~>?" }), "أمل ÿ~>?"],
  [token({}), ""],
  [token({ sub: 7 }), ""],
  ["", ""],
  ["no token", ""],
  ["a.%%%.b", ""],
])("the key %s is of %j", (key, subject) => {
  expect(subjectOf(key)).toBe(subject);
});
