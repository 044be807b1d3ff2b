import { defineConfig } from "vite";

/** Where `npm run dev` finds a running `manifold serve`. */
const SERVER = "http://127.0.0.1:8080";

export default defineConfig({
  // Relative, so that the pages also work below a proxy's path, as with Home Assistant's ingress.
  base: "./",
  build: {
    target: "es2022",
    // Kept as written: light-dark() is in every browser since 2024.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    // The page's policy is `default-src 'self'`: a data: URL would be refused.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
    sourcemap: false,
    rolldownOptions: { input: ["index.html", "talk.html"] },
  },
  server: {
    proxy: {
      "/api": SERVER,
      "/whep": SERVER,
      "/health": SERVER,
      "/voice": SERVER,
      "/tls": SERVER,
      "/ws": { target: SERVER, ws: true },
    },
  },
});
