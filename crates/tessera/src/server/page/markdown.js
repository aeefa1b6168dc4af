// Markdown of a model -> elements. Whatever a model writes is hostile: HTML is shown as text, pictures become
// links, links are http(s) or mailto and wait for a click, and DOMPurify sees everything before the document does.

import { Marked } from "./vendor/marked.js";
import hljs from "./vendor/highlight.js";
import { copyButton, el } from "./dom.js";

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (c) => ENTITIES[c]);

// Longer code stays plain: highlighting it would block the page.
const MAX_HIGHLIGHT = 60_000;

function highlighted(text, lang) {
  const language = hljs.getLanguage(lang) ? lang : null;
  if (text.length > MAX_HIGHLIGHT || !language) return escape(text);
  return hljs.highlight(text, { language, ignoreIllegals: true }).value;
}

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text, block }) => {
      // The one tag that Markdown cannot say: a line end inside a table.
      if (/^<br ?\/?>$/i.test(text)) return "<br>";
      return block ? `<p>${escape(text.trimEnd()).replaceAll("\n", "<br>")}</p>` : escape(text);
    },
    image: ({ href, text }) => `<a href="${escape(href)}">picture: ${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang }) => {
      const name = (lang ?? "").match(/^[\w+#.-]{1,30}/)?.[0].toLowerCase() ?? "";
      return `<pre><code class="language-${escape(name)}">${highlighted(text, name)}</code></pre>`;
    },
  },
});

const POLICY = {
  ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code",
    "span", "a", "em", "strong", "del", "table", "thead", "tbody", "tr", "th", "td"],
  ALLOWED_ATTR: ["href", "class", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // the expression above is meant for href alone
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** One block, or a whole document, as safe elements. */
function elements(tokens) {
  const fragment = window.DOMPurify.sanitize(marked.parser(tokens), POLICY);
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.title = link.href; // where it really leads
  }
  for (const table of fragment.querySelectorAll("table")) {
    const box = el("div", { class: "table", tabIndex: 0 });
    table.replaceWith(box);
    box.append(table);
  }
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const name = code?.className.replace("language-", "") ?? "";
    const box = el("div", { class: "code" });
    pre.replaceWith(box);
    pre.tabIndex = 0;
    box.append(el("div", { class: "code-head" }, el("span", {}, name), copyButton("Copy the code", () => pre.textContent.replace(/\n$/, ""))), pre);
  }
  return fragment;
}

// Markdown has no bound on the work that a text can ask for: thousands of unpaired `*_` in one paragraph take minutes, and
// deep nesting overflows the stack. Such a text is shown as it is.
const MAX_LINE = 10_000;
const MAX_MARKS = 1_000;
const MAX_MS = 1_000;

/** Whether a paragraph has so long a line, or so many marks of emphasis, as no reader would want. */
function tooHard(text) {
  let fence = null;
  let marks = 0;
  for (const line of text.split("\n")) {
    const found = line.match(/^ {0,3}(`{3,}|~{3,})/)?.[1];
    if (fence ? found?.startsWith(fence) : found) fence = fence ? null : found;
    else if (fence) continue;
    else if (line.trim() === "") marks = 0;
    else if (line.length > MAX_LINE || (marks += line.match(/[*_]+/g)?.length ?? 0) > MAX_MARKS) return true;
  }
  return false;
}

/** Shows a text that grows. Only blocks that changed are rendered again. */
export class Markdown {
  constructor() {
    this.node = el("div", { class: "markdown", dir: "auto" });
    this.blocks = []; // { raw, node }
    this.plain = null;
    this.nextAt = 0; // rendering before then would leave the page no time for anything else
  }

  /** Shows `text`. */
  update(text) {
    const begun = performance.now();
    try {
      if (!this.plain && !tooHard(text)) this.#render(text);
      else this.#showPlain(text);
    } catch {
      this.#showPlain(text); // nested too deep
    }
    const took = performance.now() - begun;
    if (took > MAX_MS) this.#showPlain(text);
    this.nextAt = begun + 5 * took;
  }

  /** Once and for all: what made it hard is still there in all that follows. */
  #showPlain(text) {
    if (!this.plain) {
      this.plain = el("div", { class: "plain" });
      this.node.replaceChildren(el("p", { class: "note" }, "Shown as plain text: reading its Markdown would take too long."), this.plain);
      this.blocks = [];
    }
    this.plain.textContent = text;
  }

  #render(text) {
    const tokens = marked.lexer(text);
    // Link definitions change blocks elsewhere: then all are rendered.
    const links = JSON.stringify(tokens.links);
    if (links !== this.links) this.#truncate(0);
    this.links = links;
    let same = 0;
    while (same < tokens.length && this.blocks[same]?.raw === tokens[same].raw) same += 1;
    this.#truncate(same);
    for (const token of tokens.slice(same)) {
      const node = el("div", { class: "block" });
      const one = [token];
      one.links = tokens.links;
      node.append(elements(one));
      this.node.append(node);
      this.blocks.push({ raw: token.raw, node });
    }
  }

  #truncate(length) {
    for (const { node } of this.blocks.splice(length)) node.remove();
  }
}
