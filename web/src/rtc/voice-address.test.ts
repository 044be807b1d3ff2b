import { describe, expect, it } from "vitest";
import { addressFrom, addressOfPage, addressOfScript } from "./voice-address";

const PLAIN = { protocol: "http:" };
const SECURE = { protocol: "https:" };

describe("addressFrom", () => {
  it.each([
    ["localhost:8080", "ws://localhost:8080/ws"],
    ["ws://host:8080", "ws://host:8080/ws"],
    ["ws://host:8080/ws", "ws://host:8080/ws"],
    ["wss://host/ws/", "wss://host/ws"],
    ["http://192.168.1.20:8080/", "ws://192.168.1.20:8080/ws"],
    ["https://voice.example/sub/path", "wss://voice.example/sub/path/ws"],
    ["//host:8080", "ws://host:8080/ws"],
    ["[fd00::7]:8080", "ws://[fd00::7]:8080/ws"],
    ["  host:81  ", "ws://host:81/ws"],
  ])("%s is the WebSocket %s", (setting, socket) => {
    expect(addressFrom(setting, PLAIN).socket()).toBe(socket);
  });

  it.each([
    ["host:8080", "wss://host:8443/ws"],
    ["host:9000", "wss://host:9000/ws"],
    ["voice.example", "wss://voice.example/ws"],
    ["localhost:8080", "ws://localhost:8080/ws"],
    ["http://host:8080", "ws://host:8080/ws"],
  ])("on a page that came by HTTPS, %s is %s", (setting, socket) => {
    expect(addressFrom(setting, SECURE).socket()).toBe(socket);
  });

  it.each(["", "   ", "http://", "ftp://host", "host:notaport", "http://user:secret@host"])("refuses %j in a sentence", (setting) => {
    expect(() => addressFrom(setting, PLAIN)).toThrow(/server_url .*\.$/);
  });

  it("carries a token where there is one", () => {
    expect(addressFrom("http://host:8080", PLAIN).socket("a b&c")).toBe("ws://host:8080/ws?token=a+b%26c");
  });

  it("never repeats a password", () => {
    expect(() => addressFrom("http://user:secret@host", PLAIN)).toThrow(/^(?!.*secret)/);
  });

  it("knows which servers a secure page may not use", () => {
    expect(addressFrom("http://host:8080", PLAIN).isMixedIn(SECURE)).toBe(true);
    expect(addressFrom("http://host:8080", PLAIN).isMixedIn(PLAIN)).toBe(false);
    expect(addressFrom("http://localhost:8080", PLAIN).isMixedIn(SECURE)).toBe(false);
    expect(addressFrom("https://host:8443", PLAIN).isMixedIn(SECURE)).toBe(false);
  });
});

describe("addressOfPage", () => {
  it("is the folder of the page, also behind a proxy's path", () => {
    expect(addressOfPage("http://host:8080/talk?x=1#y").socket()).toBe("ws://host:8080/ws");
    expect(addressOfPage("https://ha.example/api/hassio_ingress/abc/talk").socket()).toBe("wss://ha.example/api/hassio_ingress/abc/ws");
    expect(addressOfPage("http://host/talk").at("tls").href).toBe("http://host/tls");
  });

  it("leads to HTTPS on another port, and stays where it is secure", () => {
    expect(addressOfPage("http://host:8080/talk").secure(8443).at("talk").href).toBe("https://host:8443/talk");
    expect(addressOfPage("https://host:1/talk").secure(8443).at("talk").href).toBe("https://host:1/talk");
  });
});

describe("addressOfScript", () => {
  it("is the server that sent the cards", () => {
    expect(addressOfScript("http://host:8080/cards/manifold-cards.js?v=2")?.socket()).toBe("ws://host:8080/ws");
    expect(addressOfScript("http://ha:8123/local/manifold-cards.js")).toBeNull();
  });
});
