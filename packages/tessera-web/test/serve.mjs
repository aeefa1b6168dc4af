// A server of the installed package and of the golden folder, whose answers a test can spoil.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";

const TYPES = { html: "text/html", js: "text/javascript", mjs: "text/javascript", css: "text/css", json: "application/json", wasm: "application/wasm" };
const PAGE = `<!doctype html><title>tessera</title>
<script type="importmap">{"imports": {"tessera-web": "/pkg/dist/index.js"}}</script>`;

/** Scripts of workers that have WebLLM's handlers. */
const SCRIPTS = {
  "/handler.js": `import { WebWorkerMLCEngineHandler } from "/pkg/dist/index.js";
const handler = new WebWorkerMLCEngineHandler();
self.onmessage = (event) => handler.onmessage(event);`,
  "/service.js": `import { ServiceWorkerMLCEngineHandler } from "/pkg/dist/index.js";
new ServiceWorkerMLCEngineHandler();
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));`,
};

/**
 * `folders` are what is under an address' first part; of `""`, what is under none of them. `asked` has the requests for `golden`; `spoil` may answer one
 * itself (`true`), or give other bytes. `headers` are of every answer.
 */
export async function serve(folders) {
  const served = { asked: [], spoil: undefined, headers: {}, base: "", close: undefined };
  const server = createServer(async (request, response) => {
    for (const [name, value] of Object.entries(served.headers)) response.setHeader(name, value);
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/" && !folders[""]) return response.setHeader("content-type", "text/html").end(PAGE);
    if (SCRIPTS[pathname]) return response.setHeader("content-type", TYPES.js).end(SCRIPTS[pathname]);
    let [, first, ...rest] = normalize(pathname).split("/");
    // The examples have the package beside them.
    if (first === "examples" && rest[0] === "tessera-web") {
      rest.shift();
      first = "pkg";
    }
    const known = first === "" ? undefined : folders[first];
    const root = known ?? folders[""] ?? "/nowhere";
    const path = (known ? rest.join("/") : normalize(pathname).slice(1)).replace(/(^|\/)$/, "$1index.html");
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    const offset = range ? Number(range[1]) : 0;
    if (first === "golden") served.asked.push({ path, offset });
    let bytes;
    try {
      bytes = await readFile(join(root, path));
    } catch {
      return response.writeHead(404).end();
    }
    const spoiled = first !== "golden" ? undefined : await served.spoil?.({ path, offset, bytes, response });
    if (spoiled === true) return;
    bytes = spoiled ?? bytes;
    response.setHeader("content-type", TYPES[path.split(".").pop()] ?? "application/octet-stream");
    if (range) response.writeHead(206, { "content-range": `bytes ${offset}-${bytes.length - 1}/${bytes.length}` });
    response.end(bytes.subarray(offset));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  served.base = `http://127.0.0.1:${server.address().port}`;
  served.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  /** Sends what a connection gives that breaks after `length` bytes of a file. */
  served.cut = (response, bytes, offset, length) => {
    response.writeHead(offset > 0 ? 206 : 200, { "content-length": bytes.length - offset });
    response.write(bytes.subarray(offset, offset + length), () => setTimeout(() => response.destroy(), 30));
    return true;
  };
  return served;
}
