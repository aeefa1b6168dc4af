// The server's API as this page uses it: models, and one streamed chat completion.

/** What the server (or the way to it) said went wrong. */
export class ApiError extends Error {
  constructor(message, { status = 0, param = null, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, param, code, retryAfter });
  }

  /** As plain data, to be kept with the message. */
  data() {
    const { message, status, param, code, retryAfter } = this;
    return { message, status, param, code, retryAfter };
  }
}

// Relative to the page, so that a proxy may put the server under a path.
const at = (path) => new URL(path, document.baseURI);

const KEY = "tessera.key";

export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function setApiKey(key, keep) {
  for (const [store, wanted] of [[sessionStorage, !keep], [localStorage, keep]]) {
    if (wanted && key) store.setItem(KEY, key);
    else store.removeItem(KEY);
  }
}

function headers(more = {}) {
  const key = apiKey();
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(at(path), { ...options, redirect: "error", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError && /header|ISO-8859-1/i.test(error.message)) {
      throw new ApiError("The API key has characters that no key can have.", { status: 401, code: "invalid_api_key" });
    }
    throw new ApiError("The server cannot be reached. Is it running?", { code: "unreachable" });
  }
  if (!response.ok) throw await refused(response);
  return response;
}

/** An error of the server in OpenAI's shape; something in between may answer in another. */
async function refused(response) {
  const text = await response.text().catch(() => "");
  const about = { status: response.status, retryAfter: response.headers.get("retry-after") };
  try {
    const { error } = JSON.parse(text);
    if (typeof error?.message === "string") {
      return new ApiError(error.message, { ...about, param: error.param ?? null, code: error.code ?? error.type ?? null });
    }
  } catch {
    // Not JSON.
  }
  return new ApiError(`The server answered ${response.status} ${response.statusText}`.trim() + (text ? `: ${text.slice(0, 300)}` : ""), about);
}

/** The models that are served, as /v1/models lists them. */
export async function listModels() {
  const response = await call("v1/models", { headers: headers() });
  const body = await response.json().catch(() => null);
  if (!Array.isArray(body?.data)) throw new ApiError("The list of models is not what /v1/models promises.");
  return body.data.filter((model) => typeof model?.id === "string");
}

/** Streams one answer; `onChunk` gets each chunk. Ends normally only if the server said that it is done. */
export async function streamChat(body, signal, onChunk) {
  const response = await call("v1/chat/completions", {
    method: "POST",
    signal,
    headers: headers({ "Content-Type": "application/json", Accept: "text/event-stream" }),
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  });
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("text/event-stream")) throw new ApiError(`The server answered ${type || "something"} instead of a stream.`);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ApiError("The stream holds an event that is no JSON.");
    }
    if (chunk.error) {
      const { message, param, code, type: kind } = chunk.error;
      throw new ApiError(String(message ?? "The server failed in the middle of the answer."), { param, code: code ?? kind });
    }
    onChunk(chunk);
  }
  throw new ApiError("The connection ended before the answer was complete.", { code: "cut_off" });
}

/** The data of each server-sent event. */
async function* events(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The connection broke before the answer was complete.", { code: "cut_off" });
      });
      if (done) return;
      buffer += decoder.decode(value, { stream: true });
      const lines = buffer.split("\n");
      buffer = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
