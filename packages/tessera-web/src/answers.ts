// The requests of an engine that have not ended, and what has come of them.

import { TesseraError } from "./errors.js";
import type { Description, News, Timing, Told } from "./host.js";
import type { Progress } from "./open.js";

/** One request's news, in order; whoever reads it waits for more. */
export class Answer {
  private news: News[] = [];
  private wake: (() => void) | undefined;

  push(news: News): void {
    this.news.push(news);
    this.wake?.();
  }

  /** The next news. After `end` and `failed` there is none. */
  async next(): Promise<News> {
    while (this.news.length === 0) await new Promise<void>((resolve) => (this.wake = resolve));
    return this.news.shift()!;
  }
}

export class Answers {
  private running = new Map<string, Answer>();
  /** News of requests whose numbers are still on their way here. */
  private early = new Map<string, News[]>();
  /** Requests that nobody reads any more, until they end. */
  private gone = new Set<string>();
  private loads = new Map<number, (progress: Progress) => void>();

  /** Told of what a model runs on now, and why. */
  onNotice?: (model: string, notice: string, description: Description) => void;

  readonly told = (told: Told[]): void => {
    for (const one of told) {
      if ("load" in one) this.loads.get(one.load)?.(one.progress);
      else if ("notice" in one) this.onNotice?.(one.model, one.notice, one.description);
      else if ("broken" in one) this.fail(one.model, one.broken);
      else this.push(`${one.model}\n${one.id}`, one.news);
    }
  };

  onProgress(load: number, tell: ((progress: Progress) => void) | undefined): void {
    if (tell) this.loads.set(load, tell);
    else this.loads.delete(load);
  }

  /** The news of a request from its first on. */
  of(model: string, id: number): Answer {
    const key = `${model}\n${id}`;
    const answer = new Answer();
    this.running.set(key, answer);
    for (const news of this.early.get(key) ?? []) answer.push(news);
    this.early.delete(key);
    return answer;
  }

  /** Nobody reads a request's news any more; `ended`: there are none. */
  forget(model: string, id: number, ended: boolean): void {
    const key = `${model}\n${id}`;
    this.running.delete(key);
    if (!ended) this.gone.add(key);
  }

  /** Ends all requests of a model, or of all models. */
  fail(model: string | undefined, error: unknown): void {
    const news: News = { kind: "failed", value: error };
    for (const [key, answer] of this.running) {
      if (model === undefined || key.startsWith(`${model}\n`)) answer.push(news);
    }
  }

  private push(key: string, news: News): void {
    const answer = this.running.get(key);
    if (answer) answer.push(news);
    else if (this.gone.has(key)) {
      if (news.kind === "end" || news.kind === "failed") this.gone.delete(key);
    } else this.early.set(key, [...(this.early.get(key) ?? []), news]);
  }
}

/** What a request came to that is not streamed. */
export async function whole(answer: Answer): Promise<{ value: any; timing: Timing }> {
  let value: any;
  for (;;) {
    const news = await answer.next();
    if (news.kind === "whole") value = news.value;
    if (news.kind === "failed") throw TesseraError.from(news.value);
    if (news.kind === "end") return { value, timing: news.value };
  }
}
