// Where fetched files are kept between visits. Addresses and names are WebLLM's, so that what it has fetched is found here
// and the other way round; only OPFS is our own: a shard is there under its md5, and its length says how much has come.

import { TesseraError } from "./errors.js";

export type CacheBackend = "cache" | "indexeddb" | "cross-origin" | "opfs";
export type OPFSAccessMode = "async" | "sync" | "auto";

/** WebLLM's stores, and one for files that a folder does not have. */
export type Scope = "webllm/config" | "webllm/model" | "webllm/wasm" | "tessera/absent";

/** A file that is or may be kept. */
export interface Entry {
  scope: Scope;
  url: string;
  /** Of a shard. */
  md5?: string;
  nbytes?: number;
}

/** What is kept of a file, from its beginning. */
export interface Kept {
  stream: ReadableStream<Uint8Array>;
  /** Where less is there than the file has, `write` can go on after it. */
  grows: boolean;
}

/** Takes a file while it arrives. */
export interface Sink {
  push(part: Uint8Array): void | Promise<void>;
  /** `complete`: all of it came and is right. */
  close(complete: boolean): Promise<void>;
}

export interface Store {
  read(entry: Entry): Promise<Kept | null>;
  has(entry: Entry): Promise<boolean>;
  /** Keeps a file from byte `offset` on. */
  write(entry: Entry, offset: number): Promise<Sink>;
  remove(entry: Entry): Promise<void>;
  /** Addresses of a scope's entries. */
  urls(scope: Scope): Promise<string[]>;
  /** Does what is done with a shard while no other tab does it. */
  alone<T>(entry: Entry, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** What is configured, or the best that is there; none outside of browsers. */
export async function store(backend?: CacheBackend, access: OPFSAccessMode = "auto"): Promise<Store | null> {
  if (backend === "indexeddb") return typeof indexedDB === "undefined" ? null : new Indexed();
  if (typeof caches === "undefined") return null;
  if (backend !== undefined && backend !== "opfs") return new Cached();
  const storage = typeof navigator === "undefined" ? undefined : navigator.storage;
  if (typeof storage?.getDirectory !== "function") {
    if (backend === undefined) return new Cached();
    throw new TesseraError("storage", "cacheBackend `opfs`: this browser has no origin private file system here");
  }
  const sync = typeof FileSystemFileHandle !== "undefined" && "createSyncAccessHandle" in FileSystemFileHandle.prototype;
  if (access === "sync" && !sync) {
    throw new TesseraError("storage", "opfsAccessMode `sync`: only dedicated workers have it; take `auto`, or `worker: true`");
  }
  let shards: FileSystemDirectoryHandle;
  try {
    shards = await (await storage.getDirectory()).getDirectoryHandle("tessera", { create: true });
  } catch (cause) {
    // Private windows of some browsers refuse it.
    if (backend === undefined) return new Cached();
    throw new TesseraError("storage", `cacheBackend \`opfs\`: ${(cause as Error).message}`, { cause });
  }
  return new Opfs(shards, access !== "async" && sync);
}

/** The Cache API. */
class Cached implements Store {
  async read({ scope, url }: Entry): Promise<Kept | null> {
    const stream = (await (await caches.open(scope)).match(url))?.body;
    return stream ? { stream, grows: false } : null;
  }

  async has({ scope, url }: Entry): Promise<boolean> {
    return (await (await caches.open(scope)).match(url)) !== undefined;
  }

  async write({ scope, url }: Entry, _offset: number): Promise<Sink> {
    const cache = await caches.open(scope);
    const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
    const writer = writable.getWriter();
    const put = cache.put(url, new Response(readable));
    // It is awaited at the end; until then nobody hears of it.
    put.catch(() => {});
    writer.closed.catch(() => {});
    return {
      push: (part) => Promise.race([writer.write(part as Uint8Array<ArrayBuffer>), put]),
      async close(complete) {
        if (complete) {
          await Promise.race([writer.close(), put]);
          await put;
        } else {
          await writer.abort(new Error("not complete")).catch(() => {});
        }
      },
    };
  }

  async remove({ scope, url }: Entry): Promise<void> {
    await (await caches.open(scope)).delete(url);
  }

  async urls(scope: Scope): Promise<string[]> {
    return (await (await caches.open(scope)).keys()).map((request) => request.url);
  }

  alone<T>(_entry: Entry, _signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return work();
  }
}

/** Shards in OPFS, the rest in the Cache API. Shards that WebLLM has fetched are read from there too. */
class Opfs extends Cached {
  constructor(
    private readonly shards: FileSystemDirectoryHandle,
    private readonly sync: boolean,
  ) {
    super();
  }

  private async file({ md5 }: Entry): Promise<File | null> {
    if (!md5) return null;
    try {
      const file = await (await this.shards.getFileHandle(md5)).getFile();
      return file.size > 0 ? file : null;
    } catch (error) {
      if ((error as Error).name === "NotFoundError") return null;
      throw error;
    }
  }

  override async read(entry: Entry): Promise<Kept | null> {
    const file = await this.file(entry);
    return file ? { stream: file.stream(), grows: true } : super.read(entry);
  }

  override async has(entry: Entry): Promise<boolean> {
    const file = await this.file(entry);
    return file ? file.size === entry.nbytes : super.has(entry);
  }

  override async write(entry: Entry, offset: number): Promise<Sink> {
    if (!entry.md5) return super.write(entry, offset);
    const handle = await this.shards.getFileHandle(entry.md5, { create: true });
    let at = offset;
    if (this.sync) {
      const file: SyncFile = await (handle as any).createSyncAccessHandle();
      file.truncate(offset);
      return {
        push(part) {
          const written = file.write(part, { at });
          if (written !== part.length) throw new Error(`${written} of ${part.length} bytes could be written`);
          at += written;
        },
        async close() {
          file.flush();
          file.close();
        },
      };
    }
    const file = await handle.createWritable({ keepExistingData: true });
    await file.truncate(offset);
    return {
      async push(part) {
        await file.write({ type: "write", position: at, data: part as Uint8Array<ArrayBuffer> });
        at += part.length;
      },
      // A part is kept: the next visit goes on from there.
      close: () => file.close(),
    };
  }

  override async remove(entry: Entry): Promise<void> {
    await super.remove(entry);
    if (!entry.md5) return;
    await this.shards.removeEntry(entry.md5).catch((error: Error) => {
      if (error.name !== "NotFoundError") throw error;
    });
  }

  override alone<T>(entry: Entry, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (!entry.md5 || !navigator.locks) return work();
    return navigator.locks.request(`tessera/${entry.md5}`, { signal }, work) as Promise<T>;
  }
}

/** What the platform's types leave out: it is there in dedicated workers only. */
interface SyncFile {
  write(part: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

/** IndexedDB, as WebLLM has it: one database a scope, `{url, data}`; its configs and manifests are there as values. */
class Indexed implements Store {
  private async with<T>(scope: Scope, mode: IDBTransactionMode, work: (urls: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const opening = indexedDB.open(scope, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("urls", { keyPath: "url" });
    const db = await done(opening);
    try {
      const transaction = db.transaction(["urls"], mode);
      const ended = new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
      const request = work(transaction.objectStore("urls"));
      await ended;
      return request.result;
    } finally {
      db.close();
    }
  }

  async read({ scope, url }: Entry): Promise<Kept | null> {
    const found = await this.with(scope, "readonly", (urls) => urls.get(url));
    // Of a value that WebLLM has put there, the bytes that it was made from are gone.
    const data = found?.bytes ?? found?.data;
    if (data === undefined || data === null) return null;
    const isBytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob;
    const blob = new Blob([isBytes ? (data as BlobPart) : JSON.stringify(data)]);
    return { stream: blob.stream(), grows: false };
  }

  async has({ scope, url }: Entry): Promise<boolean> {
    return (await this.with(scope, "readonly", (urls) => urls.count(url))) > 0;
  }

  async write({ scope, url }: Entry, _offset: number): Promise<Sink> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    return {
      push: (part) => void parts.push(part.slice()),
      close: async (complete) => {
        if (!complete) return;
        const bytes = await new Blob(parts).arrayBuffer();
        const isValue = scope === "webllm/config" || /\/(ndarray|tensor)-cache\.json$/.test(url);
        const entry = isValue ? { url, bytes, data: JSON.parse(new TextDecoder().decode(bytes)) } : { url, data: bytes };
        await this.with(scope, "readwrite", (urls) => urls.put(entry));
      },
    };
  }

  async remove({ scope, url }: Entry): Promise<void> {
    await this.with(scope, "readwrite", (urls) => urls.delete(url));
  }

  async urls(scope: Scope): Promise<string[]> {
    return (await this.with(scope, "readonly", (urls) => urls.getAllKeys())).map(String);
  }

  alone<T>(_entry: Entry, _signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return work();
  }
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
