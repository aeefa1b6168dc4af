// Messages on the page. A view stays as long as its message is shown, so that what streams in only adds to it.

import { figures } from "./answer.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { Markdown } from "./markdown.js";
import { fieldOf } from "./settings.js";
import { recall, remember } from "./store.js";

/** The shown path. `acts` are what buttons do: edit, again, goOn, remove, choose, settings, isRunning. */
export class Thread {
  constructor(node, acts) {
    this.node = node;
    this.acts = acts;
    this.views = new Map();
  }

  /** Shows this path, keeping the views of messages that stay. */
  show(path) {
    const shown = new Set(path.map(({ message }) => message.id));
    for (const [id, view] of this.views) {
      if (!shown.has(id)) {
        view.node.remove();
        this.views.delete(id);
      }
    }
    let before = this.node.firstElementChild;
    for (const place of path) {
      place.last = place === path.at(-1);
      let view = this.views.get(place.message.id);
      if (!view) this.views.set(place.message.id, (view = new View(this.acts)));
      view.place = place;
      view.update();
      if (view.node === before) before = before.nextElementSibling;
      else this.node.insertBefore(view.node, before);
    }
  }

  /** Shows what is new in one message. */
  update(id) {
    this.views.get(id)?.update();
  }

  edit(id) {
    this.views.get(id)?.edit();
  }
}

class View {
  constructor(acts) {
    this.acts = acts;
    this.node = el("article", {});
    this.parts = {
      thought: null,
      body: el("div", { class: "body" }),
      notes: el("div", { class: "notes" }),
      foot: el("div", { class: "foot" }),
    };
    this.node.append(this.parts.body, this.parts.notes, this.parts.foot);
  }

  update() {
    const { message } = this.place;
    const running = this.acts.isRunning(message);
    const user = message.role === "user";
    this.node.className = `message ${message.role}`;
    this.node.dataset.id = message.id;
    this.node.setAttribute("aria-label", user ? "You" : `Answer of ${message.model || "the model"}`);
    this.node.setAttribute("aria-busy", String(running));
    if (user) {
      if (!this.editor && this.text !== message.content) {
        this.text = message.content;
        this.parts.body.replaceChildren(el("div", { class: "bubble", dir: "auto" }, message.content));
      }
      // An edit that was begun before the page was closed goes on.
      if (!this.editor && recall(`draft.edit.${message.id}`) !== null) this.edit(false);
    } else {
      this.#thought(message, running);
      if (!this.markdown) this.parts.body.append((this.markdown = new Markdown()).node);
      const due = !running || performance.now() >= this.markdown.nextAt;
      if (this.text !== message.content && due) this.markdown.update((this.text = message.content));
      this.node.classList.toggle("waiting", running && !message.content);
    }
    this.#notes(message, running);
    this.#foot(message, running);
  }

  #thought(message, running) {
    if (!message.reasoning) return;
    if (!this.parts.thought) {
      const text = el("div", { class: "thought-text", dir: "auto" });
      const summary = el("summary", { onclick: () => (this.touched = true) });
      this.parts.thought = el("details", { class: "thought" }, summary, text);
      this.parts.body.prepend(this.parts.thought);
      Object.assign(this.parts.thought, { summary, text });
    }
    const { thought } = this.parts;
    const thinking = running && !message.content;
    const seconds = message.stats?.thought;
    const time = Number.isFinite(seconds) ? ` for ${seconds.toFixed(1)} s` : "";
    thought.summary.textContent = thinking ? `Thinking${time}…` : `Thought${time}`;
    if (thought.text.textContent !== message.reasoning) thought.text.textContent = message.reasoning;
    // Open while it thinks, closed when it speaks, unless the reader chose.
    if (!this.touched) thought.open = thinking;
  }

  #notes(message, running) {
    const notes = [];
    const { error, finish } = message;
    if (error) {
      const field = fieldOf(error.param);
      notes.push(el("div", { class: "note bad", role: "alert" },
        el("p", {}, error.message),
        error.param ? el("p", { class: "param" }, "Field: ", el("code", {}, error.param)) : null,
        error.retryAfter ? el("p", {}, `The server asks to wait ${error.retryAfter} s.`) : null,
        el("div", { class: "buttons" },
          el("button", { type: "button", onclick: () => this.acts.again(message) }, "Try again"),
          this.#goOn(message),
          field ? el("button", { type: "button", onclick: () => this.acts.settings(field, error.message) }, "Show the setting") : null)));
    } else if (!running && message.role === "assistant") {
      const why = {
        stop: "", stopped: "Stopped.", length: "Ended at the longest answer allowed, or the context is full.",
        content_filter: "Ended by a content filter.", "": "This answer was not finished: the page was closed or lost it.",
      };
      const text = why[finish] ?? `Ended: ${finish}.`;
      if (text) notes.push(el("p", { class: "note" }, text, " ", this.#goOn(message) ?? ""));
    }
    this.parts.notes.replaceChildren(...notes);
  }

  /** Only the end of a conversation goes on, and only from words. */
  #goOn(message) {
    if (!message.content || !this.place.last) return null;
    return el("button", { type: "button", onclick: () => this.acts.goOn(message) }, "Go on");
  }

  #foot(message, running) {
    const { siblings, index } = this.place;
    // Rebuilding buttons on each token would take the focus from them.
    const said = message.content !== "";
    const key = JSON.stringify([running, siblings.length, index, Boolean(this.editor), said, Boolean(message.error)]);
    if (key !== this.footKey) {
      this.footKey = key;
      const kind = message.role === "user" ? "message" : "answer";
      this.parts.figures = el("span", { class: "figures" });
      const step = (by, name, label) =>
        iconButton(name, label, () => this.acts.choose(siblings[index + by]), { disabled: !siblings[index + by] });
      const buttons = el("span", { class: "actions" });
      if (siblings.length > 1) {
        buttons.append(step(-1, "left", `Earlier version of this ${kind}`),
          el("span", { class: "count", "aria-label": `Version ${index + 1} of ${siblings.length}` }, `${index + 1}/${siblings.length}`),
          step(1, "right", `Later version of this ${kind}`));
      }
      if (!running && !this.editor) {
        if (said) buttons.append(copyButton(`Copy this ${kind}`, () => message.content));
        if (message.role === "user") buttons.append(iconButton("edit", "Edit and send again", () => this.edit()));
        else if (!message.error) buttons.append(iconButton("again", "Answer again", () => this.acts.again(message)));
        buttons.append(iconButton("trash", `Delete this ${kind} and what follows`, () => this.acts.remove(message)));
      }
      this.parts.foot.replaceChildren(buttons, this.parts.figures);
    }
    if (message.role !== "assistant") return;
    const shown = figures(message);
    const text = [message.model, ...shown.map(([figure]) => figure)].join(" · ");
    if (this.parts.figures.textContent === text) return;
    const parts = shown.flatMap(([figure, meaning]) => [" · ", el("span", { title: meaning }, figure)]);
    this.parts.figures.replaceChildren(el("span", { class: "by" }, message.model), ...parts);
  }

  /** Turns the message into a field. What is typed is kept until it is sent or given up. */
  edit(focus = true) {
    const { message } = this.place;
    const name = `draft.edit.${message.id}`;
    const close = () => {
      remember(name, null);
      this.editor = null;
      this.text = undefined;
      this.update();
    };
    const area = el("textarea", {
      "aria-label": "Edit the message", value: recall(name) ?? message.content, rows: 2,
      oninput: () => remember(name, area.value),
      onkeydown: (event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          close();
        } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          send();
        }
      },
    });
    const send = () => {
      // Closed only if it was taken: a refused edit stays to be corrected.
      if (this.acts.edit(message, area.value)) close();
    };
    this.editor = area;
    this.parts.body.replaceChildren(el("div", { class: "editor" }, area,
      el("div", { class: "buttons" },
        el("button", { type: "button", class: "quiet", onclick: close }, "Cancel"),
        el("button", { type: "button", class: "strong", onclick: send }, icon("send"), "Send"))));
    this.#foot(message, false);
    if (focus) area.focus();
  }
}
