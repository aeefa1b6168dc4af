// A chat over tessera-web: pick a model, talk, stop. Serve this folder with the package in it as `tessera-web`.

import { MLCEngine, prebuiltAppConfig } from "tessera-web";

const at = (id) => document.getElementById(id);
const engine = new MLCEngine({
  initProgressCallback({ progress, text }) {
    at("progress").value = progress;
    at("state").textContent = text;
  },
});
let messages = [], answering = false;

at("models").append(...prebuiltAppConfig.model_list.map(({ model_id }) => new Option(model_id)));

function say(role, text) {
  const line = document.createElement("p");
  line.className = role;
  line.textContent = text;
  at("log").append(line);
  line.scrollIntoView({ block: "end" });
  return line;
}

/** Loads a model by its name, the address of its folder, or from a folder that was dropped. */
async function load(name, folder) {
  const known = prebuiltAppConfig.model_list;
  const record = folder ?? (/^https?:|^[./]/.test(name) && new URL(name, location.href).href);
  const model_list = record ? [...known, { model_id: name, model: record }] : known;
  for (const id of ["text", "send"]) at(id).disabled = true;
  at("progress").hidden = false;
  try {
    engine.setAppConfig({ model_list });
    await engine.reload(name);
    const { device, context, memory, notes } = engine.describe();
    at("state").textContent = [`${name} runs on ${device}`, `${context} tokens of context`, memory, ...notes].join(" · ");
    messages = [];
    at("log").replaceChildren();
    for (const id of ["text", "send"]) at(id).disabled = false;
    at("text").focus();
  } catch (error) {
    at("state").textContent = "";
    say("error", error.message);
  } finally {
    at("progress").hidden = true;
  }
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  say("user", text);
  const line = say("assistant", "…");
  answering = true;
  at("send").textContent = "Stop";
  let reply = "", usage;
  try {
    const stream = await engine.chat.completions.create({ messages, stream: true, stream_options: { include_usage: true } });
    for await (const part of stream) {
      reply += part.choices[0]?.delta.content ?? "";
      if (reply) line.textContent = reply;
      usage = part.usage;
    }
    messages.push({ role: "assistant", content: reply });
    const { decode_tokens_per_s: decode, time_to_first_token_s: first } = usage.extra;
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    at("state").textContent = `${usage.completion_tokens} tokens, ${decode.toFixed(1)} a second, the first after ${first.toFixed(2)} s; `
      + `${usage.prompt_tokens} of prompt, ${cached} of them known · ${engine.describe().device}`;
  } catch (error) {
    messages.pop();
    line.remove();
    say("error", error.message);
  } finally {
    answering = false;
    at("send").textContent = "Send";
  }
}

at("load").addEventListener("submit", (event) => {
  event.preventDefault();
  void load(at("model").value.trim());
});

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) return void engine.interruptGenerate();
  const text = at("text").value.trim();
  if (text === "") return;
  at("text").value = "";
  void ask(text);
});

at("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || answering) return;
  event.preventDefault();
  at("ask").requestSubmit();
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("drop");
});
addEventListener("dragleave", () => document.body.classList.remove("drop"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  const [item] = event.dataTransfer.items;
  const handle = await item?.getAsFileSystemHandle?.();
  if (handle?.kind === "directory") await load(handle.name, handle);
  else say("error", "Drop a folder; this browser may not give folders to pages, then serve it and give its address.");
});
