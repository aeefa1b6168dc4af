// Elements, icons, short notices, the clipboard. Nothing here reads HTML from text.

export const $ = (id) => document.getElementById(id);

/** An element: `el("button", { class: "icon", onclick: f, "aria-label": "Copy" }, "text", child)`. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-") && name !== "list") node[name] = value;
    else node.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** A picture of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button that is only a picture; `label` is its name for everyone. */
export function iconButton(name, label, onclick, props = {}) {
  return el("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

/** A notice at the lower edge; with `undo` it stays longer and offers to take the act back. */
export function toast(text, { undo, error } = {}) {
  const note = el("div", { class: error ? "toast bad" : "toast", role: error ? "alert" : "status" }, el("span", {}, text));
  const close = () => note.remove();
  if (undo) note.append(el("button", { type: "button", class: "quiet", onclick: () => (close(), undo()) }, "Undo"));
  if (error) note.append(iconButton("close", "Dismiss", close));
  $("toasts").append(note);
  if (!error) setTimeout(close, undo ? 10_000 : 4_000);
}

/** Says something to those who listen rather than look. */
export function announce(text) {
  $("status").textContent = text;
}

/** Copies; false if the browser refuses. */
export async function copyText(text) {
  // `navigator.clipboard` exists only on https and localhost; a server in the house is plain http.
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The old way below may still be allowed.
    }
  }
  const area = el("textarea", { class: "hidden", value: text, "aria-hidden": "true" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus?.();
  return done;
}

/** A button that copies what `text` returns, and shows for a moment that it did. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copyText(text());
    button.replaceChildren(icon(done ? "check" : "close"));
    announce(done ? "Copied" : "The browser did not allow copying");
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/** A random id. `crypto.randomUUID` is missing on plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}
