// Marks within Markdown's lines -> nodes: emphasis, code, links, line ends. HTML is not read: `<b>` is three letters.
// Pairs are found as in CommonMark 0.31, "an algorithm for parsing nested emphasis and links", with bounds: hostile text
// has marks by the thousand. Links are inline ones; those with definitions elsewhere stay text.

import { el } from "./dom.js";

/** Marks that wait for their partner at once; so deep do elements nest. */
const WAITING = 20;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPED = /[!-/:-@[-`{-~]/;
const PLAIN = /[^\\`*_~![\]<h\n]+/y;
const BREAK = /<br ?\/?>/iy;
const ADDRESS = /https?:\/\/[^\s<>"`[\]]{1,2000}/y;
const BRACKETED = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
/** `(address "title")`, in which brackets may stand in pairs. */
const TARGET = /\(\s{0,9}(?:<([^<>\n]{0,2000})>|((?:[^\s()<]|\([^\s()]{0,200}\)){0,2000}))(?:\s{1,9}(?:"[^"\n]{0,200}"|'[^'\n]{0,200}'))?\s{0,9}\)/y;

/** What a sticky expression finds at a place. */
function matched(expression, text, at) {
  expression.lastIndex = at;
  return expression.exec(text);
}

/** Nodes and texts of a paragraph, a heading or a cell. */
export function inlines(text) {
  const parts = [];
  // Places in `parts` of brackets that may begin a link.
  const brackets = [];
  const plain = (words) => (typeof parts.at(-1) === "string" ? parts.push(parts.pop() + words) : parts.push(words));
  let at = 0, found;
  while (at < text.length) {
    const char = text[at];
    if ((found = matched(PLAIN, text, at))) {
      plain(found[0]);
      at += found[0].length;
    } else if (char === "\\" && ESCAPED.test(text[at + 1] ?? "")) {
      plain(text[at + 1]);
      at += 2;
    } else if (char === "\\" && text[at + 1] === "\n") {
      parts.push(el("br"));
      at += 2;
    } else if (char === "`") {
      const run = length(text, at);
      const end = closing(text, at + run, run);
      if (end < 0) plain(text.slice(at, at + run));
      else parts.push(el("code", {}, [shorn(text.slice(at + run, end))]));
      at = end < 0 ? at + run : end + run;
    } else if (char === "*" || char === "_" || char === "~") {
      const run = length(text, at);
      const mark = { char, run, count: run, ...sides(text, at, run) };
      const meant = char === "~" ? run === 2 : run <= 3;
      if (meant && (mark.opens || mark.closes)) parts.push(mark);
      else plain(text.slice(at, at + run));
      at += run;
    } else if (char === "[" || text.startsWith("![", at)) {
      if (brackets.push(parts.length) > WAITING) brackets.shift();
      parts.push(char === "[" ? "[" : "![");
      at += parts.at(-1).length;
      parts.push("");
    } else if (char === "]" && brackets.length > 0) {
      const begun = brackets.pop();
      const target = matched(TARGET, text, at + 1);
      const url = target && safe(target[1] ?? target[2]);
      at += 1;
      if (!url) {
        plain("]");
        continue;
      }
      const inner = paired(parts.splice(begun + 1));
      const isPicture = parts.pop() === "![";
      parts.push(link(url, isPicture ? ["picture: ", ...inner] : inner));
      at += target[0].length;
    } else if (char === "<" && (found = matched(BREAK, text, at))) {
      // The one tag that Markdown cannot say: a line end inside a table.
      parts.push(el("br"));
      at += found[0].length;
    } else if (char === "<" && (found = matched(BRACKETED, text, at)) && safe(found[1])) {
      parts.push(link(safe(found[1]), [found[1].replace("mailto:", "")]));
      at += found[0].length;
    } else if (char === "h" && !/\w/.test(text[at - 1] ?? "") && (found = matched(ADDRESS, text, at))) {
      const address = trimmed(found[0]);
      const url = safe(address);
      if (url) parts.push(link(url, [address]));
      else plain(address);
      at += address.length;
    } else if (char === "\n" && text.endsWith("  ", at)) {
      parts.push(el("br"));
      at += 1;
    } else {
      plain(char);
      at += 1;
    }
  }
  return paired(parts);
}

/** How often the character at a place stands there. */
function length(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end++;
  return end - at;
}

/** Where `run` backticks stand, not more and not less. */
function closing(text, from, run) {
  for (let at = text.indexOf("`", from); at >= 0; at = text.indexOf("`", at)) {
    const found = length(text, at);
    if (found === run) return at;
    at += found;
  }
  return -1;
}

/** Code without line ends, and without the spaces that keep backticks apart. */
function shorn(code) {
  const line = code.replaceAll("\n", " ");
  return line.startsWith(" ") && line.endsWith(" ") && line.trim() !== "" ? line.slice(1, -1) : line;
}

/** Whether a mark may begin or end emphasis, by what stands beside it. */
function sides(text, at, run) {
  const [before, after] = [text[at - 1] ?? " ", text[at + run] ?? " "];
  const kind = (char) => (/\s/.test(char) ? 0 : PUNCTUATION.test(char) ? 1 : 2);
  const left = kind(after) === 2 || (kind(after) === 1 && kind(before) < 2);
  const right = kind(before) === 2 || (kind(before) === 1 && kind(after) < 2);
  if (text[at] !== "_") return { opens: left, closes: right };
  return { opens: left && (!right || kind(before) === 1), closes: right && (!left || kind(after) === 1) };
}

/** Parts with their marks made into elements, or into text where they have no partner. */
function paired(parts) {
  const out = [], waiting = [];
  for (const part of parts) {
    if (!part.char) {
      out.push(part);
      continue;
    }
    while (part.closes && part.count > 0) {
      const place = waiting.findLastIndex((at) => isPair(out[at], part));
      if (place < 0) break;
      const at = waiting[place];
      const opener = out[at];
      const used = Math.min(opener.count, part.count, 2);
      const node = el(part.char === "~" ? "del" : used === 2 ? "strong" : "em", {}, out.splice(at + 1).map(shown));
      opener.count -= used;
      part.count -= used;
      waiting.length = place;
      if (opener.count > 0) waiting.push(at);
      else out.pop();
      out.push(node);
    }
    if (part.count === 0) continue;
    if (part.opens && waiting.push(out.length) > WAITING) waiting.shift();
    out.push(part);
  }
  return out.map(shown);
}

/** CommonMark's rules 9 and 10: one that could both open and close does not pair where lengths sum to a multiple of 3. */
function isPair(one, other) {
  if (one.char !== other.char) return false;
  return !(one.closes || other.opens) || (one.run + other.run) % 3 !== 0 || (one.run % 3 === 0 && other.run % 3 === 0);
}

const shown = (part) => (part.char ? part.char.repeat(part.count) : part);

/** An address that may be followed, or nothing: a whole one, of the web or of mail. */
function safe(address) {
  if (!URL.canParse(address)) return null;
  const { protocol, href } = new URL(address);
  return ["http:", "https:", "mailto:"].includes(protocol) ? href : null;
}

/** A link that says where it really leads. */
function link(href, inner) {
  const node = el("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, inner);
  for (const other of node.querySelectorAll("a")) {
    while (other.firstChild) other.before(other.firstChild);
    other.remove();
  }
  return node;
}

/** An address without the punctuation of the sentence around it. */
function trimmed(address) {
  let open = address.split("(").length - address.split(")").length;
  let end = address.length;
  for (; ".,:;!?*_~'\")".includes(address[end - 1]); end--) {
    // One that belongs to the address has its partner in it.
    if (address[end - 1] === ")" && open++ >= 0) break;
  }
  return address.slice(0, end);
}
