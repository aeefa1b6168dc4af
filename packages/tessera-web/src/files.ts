// The files of a folder: from where they are kept, else from where they come, and then kept. What cannot be kept is noted,
// and the load goes on.

import { TesseraError } from "./errors.js";
import { verifyFile, type ModelIntegrity } from "./integrity.js";
import type { Place } from "./source.js";
import type { Entry, Scope, Sink, Store } from "./store.js";

/** A file of weights, as the manifest has it. */
export interface Shard {
  path: string;
  nbytes: number;
  md5sum: string | null;
}

export class Files {
  readonly notes: string[] = [];

  /** `fresh`: small files are fetched, whatever is kept. */
  constructor(
    private readonly place: Place,
    private readonly store: Store | null,
    private readonly fresh: boolean,
    private readonly integrity?: ModelIntegrity,
  ) {}

  note(text: string): void {
    if (!this.notes.includes(text)) this.notes.push(text);
  }

  /** A small file as it is kept. */
  async kept(path: string): Promise<Uint8Array | null> {
    if (this.fresh) return null;
    const entry = this.entry(scope(path), path);
    const bytes = entry && (await this.trying(`reading what is kept of ${path}`, async (store) => {
      const kept = await store.read(entry);
      return kept && new Uint8Array(await new Response(kept.stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer());
    }));
    return bytes ?? null;
  }

  /** A small file as it comes, which is then kept, or that there is none. */
  async fetched(path: string, signal: AbortSignal): Promise<Uint8Array | null> {
    const response = await this.place.read(path, 0, signal);
    const bytes = response && new Uint8Array(await response.arrayBuffer());
    const entry = this.entry(bytes ? scope(path) : "tessera/absent", path);
    if (entry) {
      await this.trying(`keeping ${path}`, async (store) => {
        const sink = await store.write(entry, 0);
        if (bytes) await sink.push(bytes);
        await sink.close(true);
      });
    }
    return bytes;
  }

  /** A small file whose hash is the record's, or that the folder has none of that name. */
  async small(path: string, signal: AbortSignal): Promise<Uint8Array | null> {
    const bytes = await this.any(path, signal);
    const warn = (text: string) => this.note(text);
    if (bytes) await verifyFile(path, bytes, this.place.url?.(path) ?? path, this.integrity, warn);
    return bytes;
  }

  private async any(path: string, signal: AbortSignal): Promise<Uint8Array | null> {
    const kept = await this.kept(path);
    if (kept) return kept;
    const absent = this.fresh ? undefined : this.entry("tessera/absent", path);
    if (absent && (await this.trying(`reading what is kept of ${path}`, (store) => store.has(absent)))) return null;
    return this.fetched(path, signal);
  }

  /** A file from byte `offset` on, from where it comes. */
  read(path: string, offset: number, signal: AbortSignal): Promise<Response | null> {
    return this.place.read(path, offset, signal);
  }

  /** Gives what is kept of a shard to `take`, from its beginning. False: it is of no use, and what was taken is not either. */
  async keptShard(shard: Shard, take: (part: Uint8Array) => void, signal: AbortSignal): Promise<boolean> {
    const entry = this.shard(shard);
    const what = `reading what is kept of ${shard.path}`;
    const kept = entry && (await this.trying(what, (store) => store.read(entry)));
    if (!kept) return true;
    let length = 0;
    try {
      for await (const part of parts(kept.stream, signal)) {
        length += part.length;
        if (length > shard.nbytes) break;
        take(part);
      }
    } catch (error) {
      if (signal.aborted) throw error;
      this.failed(what, error);
      return false;
    }
    return length === shard.nbytes || (length < shard.nbytes && kept.grows);
  }

  /** Keeps a shard from byte `offset` on; where that fails on the way, the sink takes the rest and does nothing. */
  async keep(shard: Shard, offset: number): Promise<Sink | undefined> {
    const entry = this.shard(shard);
    const sink = entry && (await this.trying(`keeping ${shard.path}`, (store) => store.write(entry, offset)));
    if (!sink) return undefined;
    let fails = false;
    const trying = async (work: () => void | Promise<void>) => {
      if (fails) return;
      try {
        await work();
      } catch (error) {
        fails = true;
        this.failed(`keeping ${shard.path}`, error);
      }
    };
    return {
      push: (part) => trying(() => sink.push(part)),
      async close(complete) {
        // Of what could not be written whole, what there is may be of use.
        if (fails) await sink.close(false).catch(() => {});
        else await trying(() => sink.close(complete));
      },
    };
  }

  async remove(shard: Shard): Promise<void> {
    const entry = this.shard(shard);
    if (entry) await this.trying(`removing ${shard.path}`, (store) => store.remove(entry));
  }

  alone<T>(shard: Shard, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const entry = this.shard(shard);
    return this.store && entry ? this.store.alone(entry, signal, work) : work();
  }

  private shard({ path, nbytes, md5sum }: Shard): Entry | undefined {
    const entry = this.entry("webllm/model", path);
    return entry && { ...entry, nbytes, ...(md5sum && { md5: md5sum }) };
  }

  private entry(scope: Scope, path: string): Entry | undefined {
    return this.place.url && { scope, url: this.place.url(path) };
  }

  private async trying<T>(what: string, work: (store: Store) => Promise<T>): Promise<T | undefined> {
    if (!this.store) return undefined;
    try {
      return await work(this.store);
    } catch (error) {
      this.failed(what, error);
      return undefined;
    }
  }

  private failed(what: string, error: unknown): void {
    const { name, message } = TesseraError.from(error);
    // The first file that it happens to stands for all.
    if (this.notes.some((note) => note.startsWith("storage: ") && note.includes(name))) return;
    const help = name === "QuotaExceededError" ? ": the browser gives this site no more room; the model runs, and is fetched again" : "";
    this.note(`storage: ${what} failed: ${name}: ${message}${help}`);
  }
}

/** Where WebLLM keeps a small file. */
function scope(path: string): Scope {
  return path === "mlc-chat-config.json" ? "webllm/config" : "webllm/model";
}

/** The parts of a stream, which is ended with them. */
export async function* parts(stream: ReadableStream<Uint8Array> | null, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = stream?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      signal.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
