import { defineConfig } from "vite";

/** Where `npm run dev` finds a running `manifold serve`. */
const SERVER = "http://127.0.0.1:8080";

export default defineConfig({
  build: {
    target: "es2022",
    // Kept as written: light-dark() is in every browser since 2024.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    // The page's policy is `default-src 'self'`: a data: URL would be refused.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
    sourcemap: false,
  },
  server: {
    proxy: { "/api": SERVER, "/whep": SERVER, "/health": SERVER },
  },
});
