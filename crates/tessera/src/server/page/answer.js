// One answer: the request from a path of messages, the stream into a message, and the figures beside it.

import { streamChat } from "./api.js";
import { requestFields } from "./settings.js";

/** The body of the request that asks for what comes after `path`. */
export function requestBody(model, settings, path) {
  const messages = [];
  if (settings.system?.trim()) messages.push({ role: "system", content: settings.system });
  for (const { role, content } of path) {
    // An answer that failed before its first word says nothing.
    if (role === "assistant" && content === "") continue;
    messages.push({ role, content });
  }
  return { model, messages, ...requestFields(settings) };
}

/** Streams into `message` (content, reasoning, stats, finish); `changed` after each chunk. */
export async function stream(body, message, signal, changed) {
  const begun = performance.now();
  let first = null;
  let thinkingEnded = null;
  let pieces = 0;
  const stats = (message.stats = {});
  await streamChat(body, signal, (chunk) => {
    const now = performance.now();
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    const said = (delta.content ?? "") + (delta.refusal ?? "");
    if (thought || said) {
      first ??= now;
      pieces += 1;
      message.reasoning += thought;
      message.content += said;
      if (said && message.reasoning) thinkingEnded ??= now;
      stats.first = (first - begun) / 1000;
      stats.seconds = (now - first) / 1000;
      if (message.reasoning) stats.thought = ((thinkingEnded ?? now) - first) / 1000;
      // A piece is a token or a few; the exact number comes at the end.
      stats.completion = pieces;
      stats.rate = pieces > 1 ? (pieces - 1) / stats.seconds : undefined;
    }
    if (choice?.finish_reason) message.finish = choice.finish_reason;
    if (chunk.usage) {
      const { prompt_tokens, completion_tokens, prompt_tokens_details } = chunk.usage;
      Object.assign(stats, { prompt: prompt_tokens, completion: completion_tokens, cached: prompt_tokens_details?.cached_tokens ?? 0, exact: 1 });
      if (completion_tokens > 1 && stats.seconds > 0) stats.rate = (completion_tokens - 1) / stats.seconds;
    }
    changed();
  });
}

const whole = new Intl.NumberFormat("en");
const some = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

/** The figures of a message, as short texts with what they mean. */
export function figures(message) {
  const stats = message.stats ?? {};
  const about = stats.exact ? "" : "≈ ";
  const found = [];
  if (stats.completion > 0) found.push([`${about}${whole.format(stats.completion)} tokens`, "Generated, thinking included"]);
  if (Number.isFinite(stats.rate)) found.push([`${about}${some(stats.rate)} tokens/s`, "Since the first token"]);
  if (Number.isFinite(stats.first)) found.push([`first after ${stats.first < 1 ? `${Math.round(stats.first * 1000)} ms` : `${stats.first.toFixed(1)} s`}`, "From sending to the first token"]);
  if (stats.prompt > 0) found.push([`${whole.format(stats.cached ?? 0)} of ${whole.format(stats.prompt)} cached`, "Prompt tokens that did not have to be computed again"]);
  if (stats.context > 0 && stats.exact) {
    const used = stats.prompt + stats.completion;
    found.push([`context ${Math.round((100 * used) / stats.context)} % full`, `${whole.format(used)} of ${whole.format(stats.context)} tokens`]);
  }
  return found;
}
