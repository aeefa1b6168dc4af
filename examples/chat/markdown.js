// Markdown of a model -> elements, while it is written. Read are headings, paragraphs, fenced code, quotes, lists, tables
// and rules, and in them what inline.js reads. What a model writes is hostile: nodes are made one by one, HTML is text,
// pictures are links, and the depth of elements has a bound.

import { copyButton, el } from "./dom.js";
import { inlines } from "./inline.js";

/** Quotes and lists within each other; what is deeper is a paragraph. */
const DEPTH = 8;
const FENCE = /^ *(`{3,}(?=[^`]*$)|~{3,}) *([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(\s+|$)/;

/** Shows a text that grows. Blocks that are as they were stay, with what is selected in them. */
export class Markdown {
  node = el("div", { className: "markdown", dir: "auto" });
  #sources = [];

  show(text) {
    const found = blocks(text.split(/\r\n?|\n/));
    let same = 0;
    while (same < found.length && this.#sources[same] === found[same].source) same++;
    while (this.node.children.length > same) this.node.lastChild.remove();
    for (const { make } of found.slice(same)) this.node.append(make());
    this.#sources = found.map(({ source }) => source);
  }
}

/** The blocks of some lines: of each the source, and what makes its element. */
function blocks(lines, depth = 0) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (lines[at].trim() === "") {
      at++;
      continue;
    }
    const { end, make } = depth > DEPTH ? paragraph(lines, at, lines.length) : block(lines, at, depth);
    found.push({ source: lines.slice(at, end).join("\n"), make });
    at = end;
  }
  return found;
}

/** The block that begins at a line: where it ends, and what makes it. */
function block(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return code(lines, at);
  const heading = HEADING.exec(line);
  if (heading) {
    const text = line.slice(heading[0].length).trim().replace(/(^|\s)#+$/, "");
    return { end: at + 1, make: () => el(`h${heading[1].length}`, {}, inlines(text.trim())) };
  }
  if (RULE.test(line)) return { end: at + 1, make: () => el("hr") };
  if (QUOTE.test(line)) {
    let end = at + 1;
    while (end < lines.length && QUOTE.test(lines[end])) end++;
    const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
    return { end, make: () => el("blockquote", {}, made(inner, depth)) };
  }
  if (ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && !interrupts(lines, end)) end++;
  return paragraph(lines, at, end);
}

const made = (lines, depth) => blocks(lines, depth + 1).map(({ make }) => make());

function paragraph(lines, at, end) {
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return { end, make: () => el("p", {}, inlines(text)) };
}

/** Whether a line ends the paragraph before it. */
function interrupts(lines, at) {
  const line = lines[at];
  if (line.trim() === "" || [FENCE, HEADING, RULE, QUOTE].some((begun) => begun.test(line))) return true;
  const [, , mark, rest] = ITEM.exec(line) ?? [];
  // A number at the start of a line is one of the sentence, unless it is the first.
  if (mark && rest !== "" && (!/^\d/.test(mark) || parseInt(mark) === 1)) return true;
  return isTable(lines, at);
}

/** Code to its closing fence, or to the end as long as there is none. */
function code(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const indent = lines[at].indexOf(fence);
  const closes = (line) => line.trim().length >= fence.length && line.trim() === fence[0].repeat(line.trim().length);
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end++;
  const text = lines.slice(at + 1, end).map((line) => line.slice(Math.min(indent, indentOf(line)))).join("\n");
  const make = () => {
    const inner = el("code", {}, [text]);
    const head = el("div", { className: "head" }, [el("span", {}, [language]), copyButton(inner)]);
    return el("div", { className: "code", dir: "ltr" }, [head, el("pre", { tabIndex: 0 }, [inner])]);
  };
  return { end: Math.min(end + 1, lines.length), make };
}

const indentOf = (line) => line.length - line.trimStart().length;

/** What begins an item: its mark's kind and place, where its text begins, and the text. */
function item(line) {
  const found = RULE.test(line) ? null : ITEM.exec(line);
  if (!found) return null;
  const [begin, { length: place }, mark, gap] = found;
  const indent = gap.length > 4 ? place + mark.length + 1 : begin.length;
  return { kind: mark.at(-1), number: parseInt(mark), place, indent, text: line.slice(indent) };
}

function list(lines, at, depth) {
  const { kind, number } = item(lines[at]);
  const items = [];
  let end = at;
  for (let next = at; next < lines.length; ) {
    const begun = item(lines[next]);
    if (begun?.kind !== kind) break;
    const inner = [begun.text.replace(/^\[([ xX])\](?= )/, (_, mark) => (mark === " " ? "☐" : "☑"))];
    end = ++next;
    for (; next < lines.length; next++) {
      const line = lines[next];
      const indent = indentOf(line);
      const isBlank = line.trim() === "";
      // Models indent an item's items by less than its text.
      const belongs = isBlank || indent >= begun.indent || (indent >= begun.place + 2 && ITEM.test(line));
      const goesOn = inner.at(-1) !== "" && !interrupts(lines, next) && !ITEM.test(line);
      if (!belongs && !goesOn) break;
      inner.push(isBlank ? "" : line.slice(Math.min(indent, begun.indent)));
      if (!isBlank) end = next + 1;
    }
    items.push(inner);
  }
  const make = () => {
    const node = el(Number.isNaN(number) ? "ul" : "ol", {}, items.map((inner) => el("li", {}, made(inner, depth))));
    if (number !== 1 && !Number.isNaN(number)) node.start = number;
    return node;
  };
  return { end, make };
}

/** A row's cells: what stands between bars. */
function cells(line) {
  const row = line.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  // Bars may stand at both ends.
  if (row[0] === "") row.shift();
  if (row.at(-1) === "") row.pop();
  return row;
}

function isTable(lines, at) {
  const below = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || !below.includes("-") || !/^[\s|:-]+$/.test(below)) return false;
  const rule = cells(below);
  return rule.every((cell) => /^:?-+:?$/.test(cell)) && rule.length === cells(lines[at]).length;
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && !interrupts(lines, end)) end++;
  const [head, , ...body] = lines.slice(at, end).map(cells);
  const sides = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (tag, found) => {
    const of = found.slice(0, sides.length).map((cell, i) => el(tag, { className: sides[i] }, inlines(cell)));
    return el("tr", {}, of);
  };
  const make = () => {
    const parts = [el("thead", {}, [row("th", head)]), el("tbody", {}, body.map((found) => row("td", found)))];
    return el("div", { className: "table", tabIndex: 0 }, [el("table", {}, parts)]);
  };
  return { end, make };
}
