/** Starts the page: what it remembers, what it asks the server, what it shows. */

import { render } from "preact";
import { Api } from "./api/client";
import { LiveStats, liveAddress } from "./api/live";
import { startHooks } from "./hooks";
import { startClock } from "./state/clock";
import { startPark } from "./state/park";
import { apiKey, hex, startSettings, userId } from "./state/settings";
import { Tile } from "./state/tile";
import { startWall } from "./state/wall";
import { startWalls } from "./state/walls";
import "./styles/page.css";
import { App } from "./ui/App";
import { startKeys } from "./ui/keys";
import { expectedTileWidth } from "./ui/layout";

/** One name a page, which nobody can guess; `crypto.randomUUID` is for secure pages alone. */
const page = Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join("");

const api = new Api({
  fetch: (input, init) => fetch(input, init),
  key: () => apiKey.peek(),
  userId,
  page,
});

/** One certificate for all connections, ready before the first click; `null` until then. */
let certificate: RTCCertificate | null = null;
void RTCPeerConnection.generateCertificate({ name: "ECDSA", namedCurve: "P-256" } as EcKeyGenParams).then(
  (made) => (certificate = made),
  // Without it each connection makes its own.
  () => undefined,
);

startSettings();
startHooks();
startWall((cameraId, among) => {
  const expectedWidthPx = devicePixelRatio * expectedTileWidth(among, innerWidth, innerHeight);
  return new Tile(cameraId, { api, certificate: () => certificate, expectedWidthPx });
});
startWalls(api);
startPark(
  api,
  (told) =>
    new LiveStats({
      address: () => liveAddress(location.origin, page, apiKey.peek()),
      newSocket: (address) => new WebSocket(address),
      random: Math.random,
      ...told,
    }),
);
startClock();
startKeys();

const root = document.getElementById("app");
if (root !== null) render(<App />, root);
