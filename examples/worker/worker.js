// The worker's side. Import maps are of pages, so the package's address is here in full.
import { WebWorkerMLCEngineHandler } from "../tessera-web/dist/index.js";

const handler = new WebWorkerMLCEngineHandler();
self.onmessage = (event) => handler.onmessage(event);
