import { expect, it } from "vitest";
import { addressFor, openInAddress, WALL_MAX, wallInAddress } from "./wall";

it.each([
  ["?open=a,b", ["a", "b"]],
  ["?open=a%2Cb", ["a", "b"]],
  ["?open=a,,b,a,%20", ["a", "b"]],
  ["?open=", []],
  ["", []],
  ["?open=%3Cscript%3E", ["<script>"]],
])("the address %s opens %j", (search, ids) => {
  expect(openInAddress(search)).toEqual(ids);
});

it("opens no more than the wall holds", () => {
  const search = `?open=${Array.from({ length: 40 }, (_, at) => `c${at}`).join(",")}`;
  expect(openInAddress(search)).toHaveLength(WALL_MAX);
});

it("writes addresses that read back the same, and leaves the rest of them alone", () => {
  const ids = ["cam-001", "a&b=c", "d#e"];
  const address = addressFor("http://h:1/?x=1&open=old#part", ids);
  expect(address).toBe("/?x=1&open=cam-001,a%26b%3Dc,d%23e#part");
  expect(openInAddress(new URL(address, "http://h").search)).toEqual(ids);
  expect(addressFor("http://h:1/?open=old", [])).toBe("/");
});

it("names a saved wall in the address for as long as it is what is open", () => {
  const saved = { id: "w 1", cameraIds: ["a", "b"] };
  expect(addressFor("http://h:1/?open=old&x=1", ["a", "b"], saved)).toBe("/?x=1&wall=w%201");
  expect(addressFor("http://h:1/?wall=w%201", ["a"], saved)).toBe("/?open=a");
  expect(addressFor("http://h:1/?wall=w%201", [], { id: "w 1", cameraIds: null })).toBe("/?wall=w%201");
  expect(wallInAddress("?wall=w%201")).toBe("w 1");
  expect(wallInAddress("?open=a")).toBe("");
});
