// The models of one thread: loads them, makes their steps, and tells what comes of it. It runs in a worker, or where it
// is called.

import { memory, type Core, type Engine } from "./core.js";
import { TesseraError, fieldsOf } from "./errors.js";
import { usual } from "./features.js";
import { chosen, opened, type Backend, type Choice } from "./gpu.js";
import { open, type Model as Opened, type Progress } from "./open.js";
import { place, type FolderSource } from "./source.js";
import { store, type CacheBackend, type OPFSAccessMode } from "./store.js";
import type { LogitProcessor } from "./types.js";

export type Endpoint = "chat" | "completions" | "embeddings";

/** What a model is and what it runs on. */
export interface Description {
  model: string;
  /** Tokens of the longest conversation. */
  context: number;
  vocab_size: number;
  /** Whether vectors are all that it makes. */
  encoder: boolean;
  /** What it runs on. */
  backend: "webgpu" | "cpu";
  /** The same in words: kernels, adapter. */
  device: string;
  /** What it takes of memory. */
  memory: string;
  /** What was noticed when it was opened. */
  notes: string[];
}

export interface Timing {
  queued_s: number;
  prefill_s: number;
  decode_s: number;
}

/** What becomes of a request. */
export type News =
  | { kind: "prefill"; value: { done: number; total: number } }
  | { kind: "part"; value: any }
  | { kind: "whole"; value: any }
  | { kind: "end"; value: Timing }
  | { kind: "failed"; value: unknown };

/** What a host tells on its own; an error without a model is one of all. */
export type Told =
  | { model: string; id: number; news: News }
  | { load: number; progress: Progress }
  | { model: string; notice: string; description: Description }
  | { broken: ReturnType<typeof fieldsOf>; model?: string };

/** What is loaded, and where its files are kept. */
export type Loading = Omit<Opened, "name" | "places" | "gpu" | "threads"> & {
  sources: FolderSource[];
  threads?: number;
  cache?: CacheBackend;
  access?: OPFSAccessMode;
};

interface Model {
  engine: Engine;
  backend: Backend;
  runs: boolean;
  /** What takes steps of it now, to wait for. */
  last: Promise<void>;
  /** When its adapter was lost. */
  lost?: number;
}

/** Milliseconds after which an adapter that is lost once more is taken once more. */
const SOON = 60_000;

/** Where the modules are. */
export interface Cores {
  one(): Promise<Core>;
  threaded?(): Promise<Core>;
  /** Why there are no threads, if there are none. */
  unthreaded?(): string | undefined;
}

export class Host {
  private models = new Map<string, Model>();
  private loads = new Map<number, AbortController>();

  constructor(
    private readonly cores: Cores,
    private readonly tell: (told: Told[]) => void,
  ) {}

  /** Loads a model under a name; `load` is a number by which it can be stopped. */
  async load(load: number, name: string, { sources, cache, access, threads, ...model }: Loading): Promise<Description> {
    const stop = new AbortController();
    this.loads.set(load, stop);
    try {
      const gpu = await chosen(model.backend);
      // Why there is one thread, where more would be had; empty where nobody asks for more.
      const single = gpu.name !== undefined || threads === 1 ? "" : this.cores.unthreaded?.();
      const core = await (single === undefined && this.cores.threaded ? this.cores.threaded() : this.cores.one());
      const tell = (progress: Progress) => this.tell([{ load, progress }]);
      const places = sources.map(place);
      const kept = places.some((place) => place.url) ? await store(cache, access) : null;
      const opening = { name, places, gpu, threads: threads ?? usual(), ...model };
      const [engine, notes] = await open(core, opening, kept, tell, stop.signal);
      if (single) notes.unshift(`it runs on one thread: ${single}`);
      this.unload(name);
      this.models.set(name, { engine, backend: model.backend, runs: false, last: Promise.resolve() });
      const description: Description = JSON.parse(engine.describe());
      return { ...description, notes: [...notes, ...description.notes] };
    } finally {
      this.loads.delete(load);
    }
  }

  /** Stops a load. */
  stop(load: number): void {
    this.loads.get(load)?.abort(new TesseraError("aborted", "the load was stopped"));
  }

  /** Takes a request; its news bear the number that is returned. */
  ask(name: string, endpoint: Endpoint, body: string, processor?: LogitProcessor): number {
    const model = this.model(name);
    processor?.resetState();
    const process = processor && ((logits: Float32Array) => processor.processLogits(logits));
    const chosen = processor && ((token: number) => processor.processSampledToken(token));
    const id = model.engine.ask(endpoint, body, process, chosen);
    if (!model.runs) {
      model.runs = true;
      void this.run(name, model);
    }
    return id;
  }

  cancel(name: string, id: number): void {
    this.models.get(name)?.engine.cancel(id);
  }

  unload(name: string): void {
    const model = this.models.get(name);
    this.models.delete(name);
    model?.engine.free();
  }

  describe(name: string): Description {
    return JSON.parse(this.model(name).engine.describe());
  }

  tokenize(name: string, text: string): Uint32Array {
    return this.model(name).engine.tokenize(text);
  }

  detokenize(name: string, ids: Uint32Array): string {
    return this.model(name).engine.detokenize(ids);
  }

  logits(name: string, ids: Uint32Array): Promise<Float32Array> {
    const model = this.model(name);
    return this.alone(model, async () => {
      this.model(name).engine.askLogits(ids);
      for (;;) {
        const logits = this.model(name).engine.logits();
        if (logits) return logits;
        await model.engine.made();
      }
    });
  }

  /** Bytes of the module's memory. It does not shrink; what an unloaded model had is used again. */
  async memory(): Promise<number> {
    return memory();
  }

  private model(name: string): Model {
    const model = this.models.get(name);
    if (!model) throw new TesseraError("model_not_loaded", `no model is loaded as ${name}`);
    return model;
  }

  /** Steps until nothing is left to do. Between two of them whatever waits for this thread has its turn. */
  private async run(name: string, model: Model): Promise<void> {
    while (this.models.get(name) === model && !model.engine.isIdle()) {
      let told: Told[];
      try {
        told = await this.alone(model, () => this.turn(name, model));
      } catch (error) {
        // The module has ended in the middle of a step: nothing of it can be used any more.
        this.models.delete(name);
        told = [{ model: name, broken: fieldsOf(error) }];
      }
      if (told.length > 0) this.tell(told);
      await yielded();
    }
    model.runs = false;
  }

  /** One step; what came of it. */
  private async turn(name: string, model: Model): Promise<Told[]> {
    let lost = false;
    while (this.models.get(name) === model) {
      const made = model.engine.turn();
      if (made !== undefined) {
        const news = JSON.parse(made) as [number, News["kind"], any][];
        const told: Told[] = news.map(([id, kind, value]) => ({ model: name, id, news: { kind, value } as News }));
        if (lost) told.unshift(this.regained(name, model));
        return told;
      }
      if (model.engine.isLost()) {
        lost = true;
        await this.regain(model);
      } else {
        await model.engine.made();
      }
    }
    return [];
  }

  /** Gives a model whose adapter is lost another one, or lets it do without. */
  private async regain(model: Model): Promise<void> {
    const now = performance.now();
    const soon = model.lost !== undefined && now - model.lost < SOON;
    model.lost = now;
    const { name }: Choice = soon ? {} : await chosen("auto");
    const on = name === undefined ? undefined : await opened(await this.cores.one(), name, "auto");
    if (!on || !("adapter" in on)) return model.engine.regain();
    model.engine.regain(on.adapter);
    await on.keep();
  }

  private regained(name: string, model: Model): Told {
    const description = this.describe(name);
    const notice = `the GPU was lost and the model is loaded again: answers go on, on ${description.device}`;
    return { model: name, notice, description };
  }

  /** Does what takes steps of a model after all that was asked before. */
  private alone<T>(model: Model, work: () => Promise<T>): Promise<T> {
    const mine = model.last.then(work);
    model.last = mine.then(() => {}, () => {});
    return mine;
  }
}

/** Lets other tasks of this thread run. */
function yielded(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
