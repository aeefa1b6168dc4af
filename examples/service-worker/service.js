// The service worker's side.
import { ServiceWorkerMLCEngineHandler } from "../tessera-web/dist/index.js";

new ServiceWorkerMLCEngineHandler();
// At once for the page that registers it, not from its next visit on.
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
