// To a host: on this thread, or in a worker.

import { fieldsOf, TesseraError } from "./errors.js";
import { Host, type Told } from "./host.js";

/** What can be asked of a host. */
export type Method = Exclude<keyof Host, "prototype">;
type Args<M extends Method> = Parameters<Host[M]>;
type Result<M extends Method> = Awaited<ReturnType<Host[M]>>;

export interface Link {
  call<M extends Method>(method: M, ...args: Args<M>): Promise<Result<M>>;
  close(): void;
}

/** A host on this thread. */
export function here(make: (tell: (told: Told[]) => void) => Host, told: (told: Told[]) => void): Link {
  const host = make(told);
  return {
    async call(method, ...args) {
      try {
        return await (host[method] as (...args: unknown[]) => any)(...args);
      } catch (error) {
        throw TesseraError.from(error);
      }
    },
    close() {},
  };
}

/** To the worker. */
export interface Question {
  tessera: number;
  method: Method;
  args: unknown[];
}

/** From it. */
export type Reply =
  | { tessera: number; value: unknown }
  | { tessera: number; error: ReturnType<typeof fieldsOf> }
  | { told: Told[] };

/** A host in a worker. */
export function there(worker: Worker, told: (told: Told[]) => void): Link {
  let last = 0;
  const waiting = new Map<number, { resolve: (value: any) => void; reject: (error: Error) => void }>();
  worker.onmessage = ({ data }: MessageEvent<Reply>) => {
    if ("told" in data) return told(data.told);
    const asked = waiting.get(data.tessera);
    waiting.delete(data.tessera);
    if ("error" in data) asked?.reject(TesseraError.from(data.error));
    else asked?.resolve(data.value);
  };
  let ended: Error | undefined;
  const fail = (error: Error) => {
    ended = error;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
    told([{ broken: fieldsOf(error) }]);
  };
  worker.onerror = (event) => {
    event.preventDefault?.();
    fail(new TesseraError("worker", `tessera's worker failed: ${event.message ?? "its script cannot be loaded"}`));
  };
  return {
    call(method, ...args) {
      return new Promise((resolve, reject) => {
        if (ended) return reject(ended);
        const tessera = ++last;
        waiting.set(tessera, { resolve, reject });
        try {
          worker.postMessage({ tessera, method, args } satisfies Question);
        } catch (cause) {
          waiting.delete(tessera);
          const what = "a function cannot be sent to a worker: take `worker: false`, or a folder of another kind";
          reject(new TesseraError("worker", `${(cause as Error).message}: ${what}`, { cause }));
        }
      });
    },
    close() {
      worker.terminate();
      fail(new TesseraError("unloaded", "the engine was closed"));
    },
  };
}

/** The worker's side. */
export function serve(
  scope: { onmessage: ((event: MessageEvent) => void) | null; postMessage(message: unknown): void },
  make: (tell: (told: Told[]) => void) => Host,
): void {
  const host = make((told) => scope.postMessage({ told } satisfies Reply));
  scope.onmessage = async ({ data }: MessageEvent<Question>) => {
    const { tessera, method, args } = data;
    try {
      const value = await (host[method] as (...args: unknown[]) => unknown)(...args);
      scope.postMessage({ tessera, value } satisfies Reply);
    } catch (error) {
      scope.postMessage({ tessera, error: fieldsOf(error) } satisfies Reply);
    }
  };
}
