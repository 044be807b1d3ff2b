import { defineConfig } from "vite";

/** The cards for Home Assistant: one file under a name that never changes, added to what `vite build` made. */
export default defineConfig({
  publicDir: false,
  build: {
    target: "es2022",
    outDir: "dist/cards",
    sourcemap: false,
    lib: { entry: "src/cards/main.ts", formats: ["es"], fileName: () => "manifold-cards.js" },
    rolldownOptions: { output: { minify: true } },
  },
});
