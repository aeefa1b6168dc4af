// A chat over tessera-web: pick a model and what it runs on, talk, stop. The package lies beside this folder, as `tessera-web`.

import { MLCEngine, ModelType, prebuiltAppConfig } from "../tessera-web/dist/index.js";
import { at, el } from "./dom.js";
import { Markdown } from "./markdown.js";

const known = prebuiltAppConfig.model_list.filter(({ model_type }) => model_type !== ModelType.embedding);
let engine, messages = [], answering = false;

at("models").append(...known.map(({ model_id }) => new Option(model_id)));

function say(className, children) {
  const follows = atEnd();
  const node = el("div", { className }, children);
  at("log").append(node);
  if (follows) toEnd();
  return node;
}

/** Who reads further up is left there. */
const atEnd = () => innerHeight + scrollY >= document.body.scrollHeight - 40;
const toEnd = () => scrollTo(0, document.body.scrollHeight);

function forget() {
  messages = [];
  at("log").replaceChildren();
}

function enable(on) {
  for (const id of ["text", "send", "anew"]) at(id).disabled = !on;
}

/** Says what the model runs on, and why. */
function tell() {
  const { model, backend, device, context, memory, notes } = engine.describe();
  const facts = [device.replace(/^(cpu|gpu): /, ""), `${context} tokens of context`, memory];
  const lines = [` ${model}: ${facts.join(" · ")}`, ...notes.map((note) => el("div", {}, [note]))];
  at("state").replaceChildren(el("b", {}, [backend === "webgpu" ? "WebGPU" : "CPU"]), ...lines);
}

/** Loads a model by its name, the address of its folder, or from a folder that was dropped. */
async function load(name, folder) {
  const model = folder ?? (/^https?:|^[./]/.test(name) && new URL(name, location.href).href);
  const model_list = model ? [...known, { model_id: name, model }] : known;
  const initProgressCallback = ({ progress, text }) => {
    if (engine !== mine) return;
    at("progress").value = progress;
    at("state").textContent = text;
  };
  const before = engine;
  const mine = (engine = new MLCEngine({ backend: at("backend").value, appConfig: { model_list }, initProgressCallback }));
  enable(false);
  at("progress").hidden = false;
  forget();
  try {
    await before?.unload();
    await mine.reload(name);
    if (engine !== mine) return void mine.unload();
    tell();
    enable(true);
    at("text").focus();
  } catch (error) {
    if (engine !== mine) return;
    at("state").textContent = "No model is loaded.";
    say("error", [error.message]);
  }
  at("progress").hidden = true;
}

async function ask(content) {
  const asked = engine, mine = messages;
  mine.push({ role: "user", content });
  say("user", [content]);
  const markdown = new Markdown(), figures = el("div", { className: "figures" }, ["…"]);
  const thought = el("div"), summary = el("summary", {}, ["Thinking"]);
  const thinking = el("details", { className: "thought", hidden: true }, [summary, thought]);
  const answer = say("assistant", [thinking, markdown.node, figures]);
  const reply = { role: "assistant", content: "" };
  let parts = 0, begun, reason, usage, drawn = false;
  const draw = () => {
    drawn = false;
    const follows = atEnd();
    markdown.show(reply.content);
    const rate = (parts - 1) / ((performance.now() - begun) / 1e3);
    if (parts > 1 && !usage) figures.textContent = `≈ ${rate.toFixed(1)} tokens a second`;
    if (follows) toEnd();
  };
  answering = true;
  at("log").ariaBusy = "true";
  at("send").textContent = "Stop";
  try {
    const request = { messages: mine, stream: true, stream_options: { include_usage: true } };
    const stream = await asked.chat.completions.create(request);
    for await (const part of stream) {
      const [choice] = part.choices;
      reply.content += choice?.delta.content ?? "";
      reason = choice?.finish_reason ?? reason;
      usage = part.usage ?? usage;
      if (choice?.delta.reasoning_content) {
        thinking.hidden = false;
        thought.append(choice.delta.reasoning_content);
      }
      parts++;
      begun ??= performance.now();
      if (!drawn) requestAnimationFrame(draw);
      drawn = true;
    }
    mine.push(reply);
    draw();
    figures.textContent = told(usage, reason);
    if (engine === asked) tell();
  } catch (error) {
    mine.pop();
    answer.remove();
    if (engine === asked) say("error", [error.message]);
  } finally {
    answering = false;
    at("log").ariaBusy = "false";
    at("send").textContent = "Send";
  }
}

/** What an answer took, and why it ended if not by itself. */
function told({ completion_tokens, prompt_tokens, prompt_tokens_details, extra }, reason) {
  const { decode_tokens_per_s: rate, time_to_first_token_s: first } = extra;
  const ends = { abort: "stopped", length: "the context is full" };
  return [
    `${completion_tokens} tokens, ${rate.toFixed(1)} a second`, `the first after ${first.toFixed(2)} s`,
    `${prompt_tokens} of prompt, ${prompt_tokens_details?.cached_tokens ?? 0} of them known`,
    ...(ends[reason] ? [ends[reason]] : []),
  ].join(" · ");
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

at("anew").addEventListener("click", async () => {
  await engine.interruptGenerate();
  forget();
  at("text").focus();
});

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering) return void engine.interruptGenerate();
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
  else say("error", ["Drop a folder; this browser may not give folders to pages, then serve it and give its address."]);
});

// `?model=NAME` loads at once.
const named = new URL(location).searchParams.get("model");
if (named) {
  at("model").value = named;
  void load(named);
}
