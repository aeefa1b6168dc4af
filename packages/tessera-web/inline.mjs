// `node inline.mjs DIST`: writes DIST/inlined.js, the module and the worker's script as texts, for pages of one file.

import { build } from "esbuild";
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";

const dist = resolve(process.argv[2]);
const wasm = gzipSync(await readFile(join(dist, "tessera_bg.wasm")), { level: 9 }).toString("base64");
const { outputFiles } = await build({
  entryPoints: [join(dist, "worker.js")], bundle: true, format: "esm", target: "es2022", minify: true, write: false,
  // Where there is a module inside, addresses of modules are not used.
  define: { "import.meta.url": '"https://inline.invalid/"' },
});
const text = `export const WASM = ${JSON.stringify(wasm)};\nexport const WORKER = ${JSON.stringify(outputFiles[0].text)};\n`;
await writeFile(join(dist, "inlined.js"), text);
