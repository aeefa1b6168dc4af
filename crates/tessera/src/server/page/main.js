// The page: which conversation is shown, what is running in it, and what the controls do.

import { requestBody, stream } from "./answer.js";
import { ApiError, listModels } from "./api.js";
import { $, announce, el, icon, newId, toast } from "./dom.js";
import { askForKey } from "./key.js";
import { Thread } from "./messages.js";
import { Settings, requestFields } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { openStore, recall, remember } from "./store.js";
import { shownPath, subtree, titleFrom } from "./thread.js";

const narrow = matchMedia("(max-width: 760px)");
const store = await openStore();
const others = new BroadcastChannel("tessera");

let conversations = new Map();
let here; // the shown conversation; stored with its first message
let messages = new Map(); // of the shown conversation
let models = [];
const running = new Map(); // message id -> { stop, conversation, message }

// ---- keeping

/** Writes rows; a browser that cannot keep them says so, and the page goes on. */
async function keep(rows, lines) {
  try {
    await store.put(rows, lines);
    others.postMessage(rows[0]?.id ?? lines[0]?.conversation);
  } catch (error) {
    banner("store", `This browser could not keep the conversation (${error.message}). Export it before you close the page.`);
  }
}

async function erase(rows, lines) {
  try {
    await store.remove(rows, lines);
    others.postMessage(here.id);
  } catch (error) {
    toast(`Could not be deleted: ${error.message}`, { error: true });
  }
}

const isRunning = (message) => running.has(message.id);
const runningHere = () => [...running.values()].find((run) => run.conversation === here.id);
const draftName = () => `draft.${conversations.has(here.id) ? here.id : "new"}`;
const path = () => shownPath(messages, here.chosen);

// ---- showing

const thread = new Thread($("thread"), {
  isRunning,
  again: (message) => again(message),
  goOn: (message) => goOn(message),
  edit: (message, text) => send(text, message.parent),
  remove: (message) => removeMessage(message),
  choose: (message) => {
    choose(message);
    show();
  },
  settings: (field, text) => openSettings(field, text),
});

const sidebar = new Sidebar({
  open: (id) => go(id),
  rename: async (id, title) => {
    const row = conversations.get(id);
    row.title = title;
    await keep([row], []);
    show();
  },
  remove: (id) => removeConversation(id),
  load: (id) => (id === here.id ? structuredClone([...messages.values()]) : store.messages(id)),
  add: async (found) => {
    await store.put(found.map((f) => f.conversation), found.flatMap((f) => f.messages));
    for (const { conversation } of found) conversations.set(conversation.id, conversation);
    others.postMessage(here.id);
    if (found.length) go(found[0].conversation.id);
  },
});

const settings = new Settings($("fields"), (values) => {
  here.settings = values;
  remember("settings", JSON.stringify(values));
  if (conversations.has(here.id)) keep([here], []);
  showControls();
});

/** Everything from the state. What streams goes through `showSoon`, which touches one message. */
function show() {
  const shown = path();
  thread.show(shown);
  $("welcome")?.remove();
  if (!shown.length) $("thread").append(welcome());
  document.title = conversations.has(here.id) ? `${here.title} · tessera` : "tessera";
  showControls();
  toEnd();
}

function showControls() {
  const run = runningHere();
  $("send").hidden = Boolean(run);
  $("stop").hidden = !run;
  $("toggle-settings").classList.toggle("set", Object.keys(here.settings).length > 0);
  sidebar.show([...conversations.values()], here.id, new Set([...running.values()].map((r) => r.conversation)));
}

function welcome() {
  const ideas = ["Explain how rainbows form, for a ten-year-old.", "Write a Rust function that reverses the words of a line, with a test.", "Give me three names for a café by the sea, and why."];
  return el("div", { id: "welcome" },
    el("img", { src: "page/icon.svg", width: 52, height: 52, alt: "" }),
    el("h1", {}, "What is on your mind?"),
    el("p", {}, "The model runs on this server. Conversations stay in this browser."),
    el("div", { class: "ideas" }, ...ideas.map((text) => el("button", { type: "button", onclick: () => {
      $("prompt").value = text;
      typed();
      $("prompt").focus();
    } }, text))));
}

let stuck = true;
const soon = new Set();
function showSoon(id) {
  if (!soon.size) requestAnimationFrame(() => {
    for (const one of soon) thread.update(one);
    soon.clear();
    toEnd();
  });
  soon.add(id);
}

function toEnd() {
  if (stuck) $("scroll").scrollTop = $("scroll").scrollHeight;
  $("to-end").hidden = stuck;
}

const banners = new Map();

/** A line above the messages that stays until it is no longer true; one for each `about`. */
function banner(about, text, button) {
  if (text) banners.set(about, el("p", {}, text, button));
  else banners.delete(about);
  $("banner").hidden = !banners.size;
  $("banner").replaceChildren(...banners.values());
}

// ---- conversations

function fresh() {
  let kept = {};
  try {
    kept = JSON.parse(recall("settings") ?? "{}");
  } catch {
    // Written by something else.
  }
  const now = Date.now();
  return { id: newId(), title: "New chat", created: now, updated: now, chosen: {}, settings: kept };
}

/** Opens a conversation, or a new one. */
async function open(id) {
  const row = conversations.get(id);
  here = row ?? fresh();
  messages = new Map();
  if (row) {
    try {
      const rows = await store.messages(row.id);
      if (here !== row) return; // another was opened meanwhile
      // What is being written right now is newer than what was kept.
      messages = new Map(rows.map((m) => [m.id, running.get(m.id)?.message ?? m]));
    } catch (error) {
      toast(`The conversation cannot be read: ${error.message}`, { error: true });
    }
  }
  settings.show(here.settings);
  if (here.model || models.length) showModels();
  $("prompt").value = recall(draftName()) ?? "";
  stuck = true;
  grow();
  show();
}

/** The address says which conversation is open, so that reload and Back work. */
function go(id) {
  const hash = id ? `#${id}` : " ";
  if (location.hash === hash) return;
  history.pushState(null, "", id ? hash : location.pathname + location.search);
  if (narrow.matches) openSidebar(false);
  open(id);
  if (!narrow.matches) $("prompt").focus();
}

async function removeConversation(id) {
  const row = conversations.get(id);
  for (const run of running.values()) if (run.conversation === id) run.stop();
  const lines = id === here.id ? [...messages.values()] : await store.messages(id);
  conversations.delete(id);
  if (id === here.id) go(null);
  else show();
  await erase([id], lines.map((m) => m.id));
  toast(`“${row.title}” deleted.`, { undo: async () => {
    conversations.set(id, row);
    await keep([row], lines);
    show();
  } });
}

async function removeMessage(message) {
  const lines = subtree(messages, message.id);
  for (const line of lines) running.get(line.id)?.stop();
  for (const line of lines) messages.delete(line.id);
  const [conversation, chosen] = [here, { ...here.chosen }];
  delete here.chosen[message.parent ?? "root"];
  show();
  await erase([], lines.map((m) => m.id));
  await keep([here], []);
  toast(lines.length > 1 ? `${lines.length} messages deleted.` : "Deleted.", { undo: async () => {
    conversation.chosen = chosen;
    if (conversation === here) for (const line of lines) messages.set(line.id, line);
    await keep([conversation], lines);
    show();
  } });
}

function choose(message) {
  here.chosen[message.parent ?? "root"] = message.id;
  if (conversations.has(here.id)) keep([here], []);
}

// ---- asking

/** Sends a text below `parent`; false if it cannot be sent, and then it stays where it was typed. */
function send(text, parent) {
  if (!text.trim() || !ready()) return false;
  const message = { id: newId(), conversation: here.id, parent, role: "user", content: text, created: Date.now() };
  if (!conversations.has(here.id)) {
    here.title = titleFrom(text);
    conversations.set(here.id, here);
    history.pushState(null, "", `#${here.id}`);
  }
  messages.set(message.id, message);
  choose(message);
  keep([here], [message]);
  stuck = true;
  ask(message.id);
  return true;
}

/** Whether a request can be made; if not, the reason is shown where it can be changed. */
function ready() {
  if (runningHere()) {
    announce("An answer is running: stop it first");
    return false;
  }
  if (!here.model) {
    toast("No model is chosen.", { error: true });
    return false;
  }
  try {
    requestFields(here.settings);
    return true;
  } catch (error) {
    openSettings(error.field, error.message);
    return false;
  }
}

/** Another answer to the same message. One that failed without a word is replaced. */
function again(message) {
  if (!ready()) return;
  if (message.error && !message.content && !message.reasoning) {
    messages.delete(message.id);
    erase([], [message.id]);
  }
  ask(message.parent);
}

function ask(parent) {
  const message = {
    id: newId(), conversation: here.id, parent, role: "assistant", content: "", reasoning: "",
    // Never before its question, whatever the clock does.
    created: Math.max(Date.now(), (messages.get(parent)?.created ?? 0) + 1),
    model: here.model, finish: "", stats: null, error: null,
  };
  messages.set(message.id, message);
  choose(message);
  const before = path().map((p) => p.message).filter((m) => m !== message);
  run(message, requestBody(here.model, here.settings, before), again);
}

/** Lets the model go on where an answer was cut. */
function goOn(message) {
  if (!ready()) return;
  const before = path().map((p) => p.message);
  const upTo = before.slice(0, before.indexOf(message) + 1);
  Object.assign(message, { model: here.model, finish: "", error: null });
  const more = { continue_final_message: true, add_generation_prompt: false };
  run(message, { ...requestBody(here.model, here.settings, upTo), ...more }, goOn);
}

/** Streams the answer to `body` into `message`; `retry` is what was wanted, for after a key was asked for. */
async function run(message, body, retry) {
  const conversation = here;
  const abort = new AbortController();
  running.set(message.id, { stop: () => abort.abort(), conversation: conversation.id, message });
  conversation.updated = Date.now();
  show();
  announce("Answering");
  let saved = performance.now();
  try {
    await stream(body, message, abort.signal, () => {
      showSoon(message.id);
      if (performance.now() - saved > 1000) {
        saved = performance.now();
        store.put([], [message]).catch(() => {}); // the last one tells of failures
      }
    });
    message.finish ||= "stop";
    const context = models.find((model) => model.id === message.model)?.max_model_len;
    if (Number.isFinite(context)) message.stats.context = context;
  } catch (error) {
    if (error.name === "AbortError") message.finish = "stopped";
    else message.error = error instanceof ApiError ? error.data() : { message: `The page failed: ${error.message}`, param: null };
  }
  running.delete(message.id);
  // Deleted while it ran: it must not come back.
  if (conversations.has(conversation.id) && (conversation !== here || messages.has(message.id))) await keep([conversation], [message]);
  if (conversation === here) {
    thread.update(message.id);
    toEnd();
  }
  showControls();
  announce(message.error ? `Error: ${message.error.message}` : `Answer complete. ${message.content.slice(0, 300)}`);
  if (message.error?.status === 401 && (await askForKey(message.error.message))) {
    await loadModels();
    if (conversation === here && messages.has(message.id)) retry(message);
  }
}

// ---- models

async function loadModels() {
  try {
    models = await listModels();
    banner("models", models.length ? null : "The server serves no model.");
  } catch (error) {
    if (error.status === 401 && (await askForKey(error.message))) return loadModels();
    banner("models", error.message, el("button", { type: "button", onclick: loadModels }, "Try again"));
  }
  showModels();
}

function showModels() {
  const ids = models.map((model) => model.id);
  here.model ??= recall("model") ?? undefined;
  // A conversation keeps its model; only a new one takes another when that is gone.
  if (!conversations.has(here.id) && ids.length && !ids.includes(here.model)) here.model = ids[0];
  const options = ids.map((id) => el("option", { value: id }, id));
  if (here.model && !ids.includes(here.model)) options.unshift(el("option", { value: here.model }, models.length ? `${here.model} (not served)` : here.model));
  if (!options.length) options.push(el("option", { value: "" }, "No model"));
  $("model").replaceChildren(...options);
  $("model").value = here.model ?? "";
}

$("model").addEventListener("change", () => {
  here.model = $("model").value;
  remember("model", here.model);
  if (conversations.has(here.id)) keep([here], []);
});

// ---- the composer

function grow() {
  const area = $("prompt");
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, innerHeight * 0.4)}px`;
}

function typed() {
  remember(draftName(), $("prompt").value);
  grow();
}

$("prompt").addEventListener("input", typed);
$("prompt").addEventListener("keydown", (event) => {
  // Enter that ends the input of a Chinese word sends nothing.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && $("prompt").value === "" && !runningHere()) {
    const last = path().findLast((p) => p.message.role === "user");
    if (last) {
      event.preventDefault();
      thread.edit(last.message.id);
    }
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const draft = draftName();
  if (!send($("prompt").value, path().at(-1)?.message.id ?? null)) return;
  remember(draft, null);
  $("prompt").value = "";
  grow();
});
$("stop").addEventListener("click", () => {
  runningHere()?.stop();
  $("prompt").focus();
});
$("scroll").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("scroll");
  stuck = scrollHeight - scrollTop - clientHeight < 60;
  $("to-end").hidden = stuck;
});
$("to-end").addEventListener("click", () => {
  stuck = true;
  toEnd();
});

// ---- panels, theme, keys

function openSidebar(wanted) {
  document.body.classList.toggle("no-sidebar", !wanted);
  $("toggle-sidebar").setAttribute("aria-expanded", String(wanted));
  $("shade").hidden = !(wanted && narrow.matches);
  if (!narrow.matches) remember("sidebar", wanted ? null : "closed");
  else if (wanted) $("close-sidebar").focus();
}

function openSettings(field, message) {
  $("settings").hidden = false;
  $("toggle-settings").setAttribute("aria-expanded", "true");
  if (field) settings.mark(field, message);
  $(`set-${field ?? "system"}`).focus();
}

function closeSettings() {
  if ($("settings").contains(document.activeElement)) $("toggle-settings").focus();
  $("settings").hidden = true;
  $("toggle-settings").setAttribute("aria-expanded", "false");
}

$("toggle-sidebar").addEventListener("click", () => openSidebar(document.body.classList.contains("no-sidebar")));
$("close-sidebar").addEventListener("click", () => (openSidebar(false), $("toggle-sidebar").focus()));
$("shade").addEventListener("click", () => openSidebar(false));
$("toggle-settings").addEventListener("click", () => ($("settings").hidden ? openSettings() : closeSettings()));
$("close-settings").addEventListener("click", closeSettings);
$("new-chat").addEventListener("click", () => {
  if (conversations.has(here.id)) go(null);
  else if (narrow.matches) openSidebar(false);
  $("prompt").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), $("prompt").focus()));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("key-dialog").open) return;
  const run = runningHere();
  if (run) run.stop();
  else if (!$("settings").hidden) closeSettings();
  else if (narrow.matches && !document.body.classList.contains("no-sidebar")) $("close-sidebar").click();
});

const THEMES = { auto: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };
function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "auto";
  $("theme").replaceChildren(icon(theme));
  $("theme").title = THEMES[theme];
  $("theme").setAttribute("aria-label", THEMES[theme]);
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  remember("theme", next === "auto" ? null : next);
  showTheme();
  announce(THEMES[next]);
});

addEventListener("popstate", () => open(location.hash.slice(1)));
addEventListener("pagehide", () => running.forEach((run) => store.put([], [run.message]).catch(() => {})));
others.addEventListener("message", async ({ data }) => {
  const rows = await store.conversations().catch(() => null);
  if (!rows) return;
  const known = here;
  conversations = new Map(rows.map((row) => [row.id, row.id === known.id && runningHere() ? known : row]));
  if (data === known.id && conversations.has(known.id) && !runningHere()) {
    here = conversations.get(known.id);
    messages = new Map((await store.messages(known.id)).map((m) => [m.id, m]));
    show();
  } else showControls();
});

// ---- start

showTheme();
openSidebar(!narrow.matches && recall("sidebar") !== "closed");
if (!store.kept) banner("store", "This browser does not let the page keep anything: conversations last until the tab is closed.");
conversations = new Map((await store.conversations().catch(() => [])).map((row) => [row.id, row]));
await open(location.hash.slice(1));
await loadModels();
document.documentElement.dataset.ready = "true"; // for tests: everything is wired
