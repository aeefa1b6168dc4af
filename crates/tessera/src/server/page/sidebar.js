// The list of conversations, and their way in and out as files.

import { $, el, iconButton, newId, toast } from "./dom.js";
import { exportFile, parseExport } from "./thread.js";

const GROUPS = [["Today", 1], ["Last seven days", 7], ["Last thirty days", 30], ["Older", Infinity]];

// Larger files are no export of this page, and reading them would stall it.
const MAX_IMPORT = 64 * 1024 * 1024;

export class Sidebar {
  /** `acts`: open, rename, remove, load (messages of a conversation), add (conversations from a file). */
  constructor(acts) {
    this.acts = acts;
    $("search").addEventListener("input", () => this.render());
    $("export").addEventListener("click", () => this.#export(this.rows, "tessera-chats"));
    $("import").addEventListener("click", () => $("import-file").click());
    $("import-file").addEventListener("change", (event) => this.#import(event.target));
  }

  show(rows, current, running) {
    Object.assign(this, { rows, current, running });
    if (!this.renaming) this.render();
  }

  render() {
    const wanted = $("search").value.trim().toLowerCase();
    const rows = this.rows.filter((row) => row.title.toLowerCase().includes(wanted)).sort((a, b) => b.updated - a.updated);
    const midnight = new Date().setHours(24, 0, 0, 0);
    const items = [];
    let group = null;
    for (const row of rows) {
      const days = Math.ceil((midnight - row.updated) / 86_400_000);
      const [name] = GROUPS.find(([, limit]) => days <= limit);
      if (name !== group) items.push(el("li", { class: "group" }, (group = name)));
      items.push(this.#item(row));
    }
    if (!rows.length) items.push(el("li", { class: "empty" }, wanted ? "No title has this." : "Conversations appear here. They stay in this browser."));
    const focused = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    $("conversations").replaceChildren(...items);
    if (focused) document.querySelector(`#conversations li[data-id="${focused}"] .title`)?.focus();
  }

  #item(row) {
    const here = row.id === this.current;
    const open = el("button", { type: "button", class: "title", title: row.title, "aria-current": here ? "true" : null, onclick: () => this.acts.open(row.id) },
      this.running.has(row.id) ? el("span", { class: "dot", "aria-label": "answering" }) : null, el("span", { dir: "auto" }, row.title));
    const item = el("li", { class: here ? "conversation here" : "conversation" }, open, el("span", { class: "actions" },
      iconButton("edit", `Rename “${row.title}”`, () => this.#rename(row, item)),
      iconButton("export", `Export “${row.title}”`, () => this.#export([row], row.title)),
      iconButton("trash", `Delete “${row.title}”`, () => this.acts.remove(row.id))));
    item.dataset.id = row.id;
    return item;
  }

  #rename(row, item) {
    this.renaming = true;
    const done = (keep) => {
      if (!this.renaming) return;
      this.renaming = false;
      const title = input.value.trim();
      if (keep && title && title !== row.title) this.acts.rename(row.id, title);
      this.render();
      document.querySelector(`#conversations li[data-id="${row.id}"] .title`)?.focus();
    };
    const input = el("input", {
      type: "text", value: row.title, maxLength: 200, "aria-label": "Title",
      onblur: () => done(true),
      onkeydown: (event) => {
        if (event.key === "Enter") done(true);
        if (event.key === "Escape") {
          event.stopPropagation();
          done(false);
        }
      },
    });
    item.replaceChildren(input);
    input.select();
  }

  async #export(rows, name) {
    if (!rows.length) return toast("There is no conversation to export yet.");
    try {
      const all = [];
      for (const row of rows) {
        // Parents before children: what `parseExport` asks for.
        const messages = (await this.acts.load(row.id)).sort((a, b) => a.created - b.created);
        const { id, title, created, updated, chosen, settings } = row;
        all.push({ id, title, created, updated, chosen, settings, messages: messages.map(({ conversation, ...rest }) => rest) });
      }
      const url = URL.createObjectURL(new Blob([exportFile(all)], { type: "application/json" }));
      const file = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat"}.json`;
      el("a", { href: url, download: file }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      toast(`The export failed: ${error.message}`, { error: true });
    }
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      if (file.size > MAX_IMPORT) throw new Error(`${file.size} bytes, at most ${MAX_IMPORT} are read`);
      const found = parseExport(await file.text(), newId);
      await this.acts.add(found);
      toast(found.length === 1 ? "One conversation imported." : `${found.length} conversations imported.`);
    } catch (error) {
      toast(`${file.name}: ${error.message}`, { error: true });
    }
  }
}
