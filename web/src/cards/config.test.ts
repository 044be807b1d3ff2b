import { describe, expect, it } from "vitest";
import { addressOfScript } from "../rtc/voice-address";
import { isOnlyHere, receivingConfigFrom, sendingConfigFrom } from "./config";

const AROUND = { page: { protocol: "http:" }, home: null };
const TYPE = { type: "custom:voice-card" };

describe("sendingConfigFrom", () => {
  it.each(["localhost:8080", "ws://localhost:8080", "ws://localhost:8080/ws", "http://localhost:8080"])("takes an old card's %s", (server_url) => {
    expect(sendingConfigFrom({ ...TYPE, server_url }, AROUND).address.socket()).toBe("ws://localhost:8080/ws");
  });

  it("takes the server that sent the script where none is named", () => {
    const home = addressOfScript("http://10.0.0.7:8080/cards/manifold-cards.js");
    expect(sendingConfigFrom(TYPE, { ...AROUND, home }).address.socket()).toBe("ws://10.0.0.7:8080/ws");
  });

  it("has a title by either name, and a mode", () => {
    const server = { ...TYPE, server_url: "host:8080" };
    expect(sendingConfigFrom(server, AROUND)).toMatchObject({ title: "Talk", mode: "hold" });
    expect(sendingConfigFrom({ ...server, name: "Kitchen" }, AROUND).title).toBe("Kitchen");
    expect(sendingConfigFrom({ ...server, name: "Kitchen", title: "Hall", mode: "latch" }, AROUND)).toMatchObject({ title: "Hall", mode: "latch" });
  });

  it.each([
    [{}, /server_url is missing/],
    [{ server_url: 8080 }, /server_url has to be text.*“8080”/],
    [{ server_url: ["a"] }, /a list/],
    [{ server_url: "ftp://x" }, /ftp:/],
    [{ server_url: "x", mode: "always" }, /“hold”.*“latch”/],
    [{ server_url: "x", title: {} }, /title has to be text/],
    [{ server_url: "x", token: 12345678 }, /token has to be text/],
  ])("says what is wrong with %j", (wrong, words) => {
    expect(() => sendingConfigFrom({ ...TYPE, ...wrong }, AROUND)).toThrow(words);
  });
});

describe("receivingConfigFrom", () => {
  it("names the stream for media players", () => {
    const config = receivingConfigFrom({ ...TYPE, server_url: "ws://10.0.0.7:8080/ws", auto_listen: true, target_media_player: "media_player.hall" }, AROUND);
    expect(config).toMatchObject({ autoListen: true, targetMediaPlayer: "media_player.hall", streamUrl: "http://10.0.0.7:8080/stream/latest.mp3" });
    const other = receivingConfigFrom({ ...TYPE, server_url: "wss://host:8443", stream_url: "http://10.0.0.7/x.mp3" }, AROUND);
    expect(other).toMatchObject({ autoListen: false, targetMediaPlayer: null, streamUrl: "http://10.0.0.7/x.mp3" });
  });

  it.each([
    [{ auto_listen: "yes" }, /auto_listen has to be true or false/],
    [{ target_media_player: "light.hall" }, /media_player\.kitchen/],
    [{ target_media_player: ["media_player.a"] }, /one media player/],
    [{ stream_url: "host/latest.mp3" }, /http:\/\/ or https:\/\//],
  ])("says what is wrong with %j", (wrong, words) => {
    expect(() => receivingConfigFrom({ ...TYPE, server_url: "host", ...wrong }, AROUND)).toThrow(words);
  });

  it("knows addresses that mean the speaker itself", () => {
    expect(isOnlyHere("http://localhost:8080/stream/latest.mp3")).toBe(true);
    expect(isOnlyHere("http://10.0.0.7:8080/stream/latest.mp3")).toBe(false);
  });
});
