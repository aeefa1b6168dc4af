// A conversation is a tree: an edit or another answer is a sibling, so nothing that was written is lost. What is shown
// is one path through it. Functions of plain values, without page or server.

/** Messages by parent, oldest first. */
export function childrenOf(messages) {
  const children = new Map();
  const rows = [...messages.values()].sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
  for (const message of rows) {
    const parent = messages.has(message.parent) ? message.parent : null;
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(message);
  }
  return children;
}

/** The shown path. `chosen` says which child of a message is shown; the newest if it does not say. */
export function shownPath(messages, chosen) {
  const children = childrenOf(messages);
  const path = [];
  let parent = null;
  for (;;) {
    const siblings = children.get(parent);
    // A file that was edited by hand could have a circle.
    if (!siblings || path.length > messages.size) return path;
    const message = siblings.find((m) => m.id === chosen[parent ?? "root"]) ?? siblings.at(-1);
    path.push({ message, index: siblings.indexOf(message), siblings });
    parent = message.id;
  }
}

/** A message and everything below it. */
export function subtree(messages, id) {
  const children = childrenOf(messages);
  const found = [];
  const visit = [messages.get(id)];
  while (visit.length) {
    const message = visit.pop();
    found.push(message);
    visit.push(...(children.get(message.id) ?? []));
  }
  return found;
}

/** The first line of a text as a title. */
export function titleFrom(text) {
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  const letters = [...line];
  return letters.length > 60 ? `${letters.slice(0, 59).join("")}…` : line || "New chat";
}

const FORMAT = "tessera-chat";

/** The file that `parseExport` reads. */
export function exportFile(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 2);
}

/** Conversations with their messages from a file; everything gets a new id. Throws what is wrong and where. */
export function parseExport(text, newId) {
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new Error(`no JSON: ${error.message}`);
  }
  if (file?.format !== FORMAT) throw new Error(`"format" is ${JSON.stringify(file?.format)}, expected "${FORMAT}"`);
  if (file.version !== 1) throw new Error(`"version" is ${JSON.stringify(file.version)}; this page reads version 1`);
  if (!Array.isArray(file.conversations)) throw new Error('"conversations" is no list');
  return file.conversations.map((conversation, i) => checked(conversation, `conversations[${i}]`, newId));
}

function checked(source, where, newId) {
  const need = (holds, what) => {
    if (!holds) throw new Error(`${where}${what}`);
  };
  need(source && typeof source === "object", " is no object");
  need(typeof source.title === "string", ".title is no text");
  need(Array.isArray(source.messages), ".messages is no list");
  const ids = new Map(source.messages.map((message) => [message?.id, newId()]));
  need(ids.size === source.messages.length, ".messages: an id is there twice");
  const id = newId();
  const seen = new Set();
  const messages = source.messages.map((message, i) => {
    const at = `.messages[${i}]`;
    need(message && typeof message.id === "string", `${at}.id is no text`);
    need(["user", "assistant"].includes(message.role), `${at}.role is neither "user" nor "assistant"`);
    need(typeof message.content === "string", `${at}.content is no text`);
    // Parents come first, which also rules out circles.
    need(message.parent === null || seen.has(message.parent), `${at}.parent is no earlier message`);
    seen.add(message.id);
    const { role, content } = message;
    return {
      id: ids.get(message.id), conversation: id, parent: ids.get(message.parent) ?? null, role, content,
      reasoning: text(message.reasoning), model: text(message.model), finish: text(message.finish),
      created: number(message.created), stats: plainStats(message.stats),
      error: typeof message.error?.message === "string" ? { message: message.error.message, param: text(message.error.param) || null } : null,
    };
  });
  const chosen = {};
  for (const [parent, child] of Object.entries(source.chosen ?? {})) {
    if (ids.has(child) && (parent === "root" || ids.has(parent))) chosen[ids.get(parent) ?? "root"] = ids.get(child);
  }
  const settings = Object.fromEntries(Object.entries(source.settings ?? {}).filter(([, value]) => typeof value === "string"));
  return {
    conversation: { id, title: source.title, created: number(source.created), updated: number(source.updated), chosen, settings },
    messages,
  };
}

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : 0);

const STATS = ["exact", "prompt", "cached", "completion", "first", "seconds", "rate", "thought", "context"];
const plainStats = (stats) =>
  stats && typeof stats === "object" ? Object.fromEntries(STATS.filter((k) => Number.isFinite(stats[k])).map((k) => [k, stats[k]])) : null;
