// WebLLM's requests to the engine's, and the engine's answers to WebLLM's. Every field goes to the engine's own tables,
// which honour or refuse it by name; here are only those that WebLLM spells otherwise.

import { TesseraError } from "./errors.js";
import type { Timing } from "./host.js";

type Fields = Record<string, unknown>;

/** A chat request as the engine takes it. */
export function chatBody(request: Fields, model: string): Fields {
  const body = generationBody(request, model);
  if (body.extra_body !== undefined) {
    const { enable_thinking, ...extra } = (body.extra_body ?? {}) as Fields;
    delete body.extra_body;
    refuseOthers(extra, "extra_body");
    if (enable_thinking !== undefined && enable_thinking !== null) {
      body.chat_template_kwargs = { ...(body.chat_template_kwargs as Fields), enable_thinking };
    }
  }
  return body;
}

/** A request for a completion, likewise. */
export function generationBody(request: Fields, model: string): Fields {
  const body: Fields = { ...request, model };
  const format = body.response_format as Fields | undefined | null;
  if (format) body.response_format = formatOf(format);
  if (typeof body.temperature === "number" && body.temperature < 1e-6 && body.temperature >= 0) body.temperature = 0;
  for (const [one, other] of [["frequency_penalty", "presence_penalty"], ["presence_penalty", "frequency_penalty"]]) {
    // One alone sets the other to 0, whatever the model's default.
    if (isGiven(body[one!]) && !isGiven(body[other!])) body[other!] = 0;
  }
  return body;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function refuseOthers(extra: Fields, path: string): void {
  for (const [name, value] of Object.entries(extra)) {
    if (name === "enable_latency_breakdown" && (value === false || !isGiven(value))) continue;
    const message = `${path}.${name} is not supported`;
    throw new TesseraError("unknown_parameter", message, { param: `${path}.${name}`, status: 400 });
  }
}

/** WebLLM's `json_object` with a schema as text; the rest is OpenAI's. */
function formatOf(format: Fields): Fields {
  const { type, schema, ...rest } = format;
  if (!isGiven(schema)) return { type, ...rest };
  if (type !== "json_object") {
    const message = `response_format.schema has no meaning with type ${JSON.stringify(type)}`;
    throw new TesseraError("invalid_value", message, { param: "response_format.schema", status: 400 });
  }
  let parsed: unknown = schema;
  if (typeof schema === "string") {
    try {
      parsed = JSON.parse(schema);
    } catch (cause) {
      const message = `response_format.schema is not JSON: ${(cause as Error).message}`;
      throw new TesseraError("invalid_value", message, { param: "response_format.schema", status: 400, cause });
    }
  }
  return { ...rest, type: "json_schema", json_schema: { name: "schema", schema: parsed } };
}

/** Adds to a usage what WebLLM has in `extra`, of times in seconds. */
export function withExtra(usage: any, timing: Timing): any {
  if (!usage) return usage;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const decoded = Math.max((usage.completion_tokens ?? 0) - 1, 0);
  const rate = (n: number, seconds: number) => (seconds > 0 ? n / seconds : 0);
  return {
    ...usage,
    extra: {
      e2e_latency_s: timing.queued_s + timing.prefill_s + timing.decode_s,
      prefill_tokens_per_s: rate(usage.prompt_tokens - cached, timing.prefill_s),
      decode_tokens_per_s: rate(decoded, timing.decode_s),
      time_to_first_token_s: timing.queued_s + timing.prefill_s,
      time_per_output_token_s: decoded > 0 ? timing.decode_s / decoded : 0,
    },
  };
}
