// The settings panel. Values are kept as typed; an empty field is left out of the request, so that the model's own
// default holds, and a field that cannot be sent as it stands stops the sending instead of being dropped.

import { el } from "./dom.js";

const number = (min, max, whole = false) => (text) => {
  const value = Number(text.trim());
  if (!Number.isFinite(value) || (whole && !Number.isSafeInteger(value))) throw new Error(`must be a ${whole ? "whole " : ""}number`);
  if (value < min || value > max) throw new Error(max === Infinity ? `must be ${min} or more` : `must be between ${min} and ${max}`);
  return value;
};

const lines = (text) => {
  const values = text.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
  if (values.length > 16) throw new Error(`has ${values.length} lines, at most 16 can be sent`);
  return values;
};

const schema = (text) => {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`is no JSON: ${error.message}`);
  }
  return { type: "json_schema", json_schema: { name: "answer", strict: true, schema: value } };
};

/** `param` is the name in the request, which is also how the server names a field in an error. */
const FIELDS = [
  { name: "system", label: "System prompt", rows: 4, hint: "What the model should know or be, before anything else." },
  { name: "temperature", label: "Temperature", param: "temperature", parse: number(0, 2), step: "0.1", hint: "0 is always the likeliest word; higher is more varied." },
  { name: "top_p", label: "Top p", param: "top_p", parse: number(0, 1), step: "0.05", hint: "Only the likeliest words that together reach this." },
  { name: "top_k", label: "Top k", param: "top_k", parse: number(0, 1e6, true), step: "1", hint: "Only this many words to choose from; 0 is all." },
  { name: "min_p", label: "Min p", param: "min_p", parse: number(0, 1), step: "0.01", hint: "Only words at least this likely, next to the likeliest." },
  { name: "repetition_penalty", label: "Repetition penalty", param: "repetition_penalty", parse: number(0.01, 10), step: "0.05", hint: "Above 1 makes repeated words less likely." },
  { name: "max_tokens", label: "Longest answer", param: "max_completion_tokens", parse: number(1, 1e9, true), step: "1", hint: "In tokens, thinking included." },
  { name: "seed", label: "Seed", param: "seed", parse: number(0, Number.MAX_SAFE_INTEGER, true), step: "1", hint: "The same seed and settings give the same answer." },
  { name: "stop", label: "Stop texts", param: "stop", rows: 2, parse: lines, hint: "One a line: the answer ends before it. \\n is a line end." },
  { name: "schema", label: "JSON schema", param: "response_format", rows: 3, parse: schema, code: true, hint: "The answer is JSON that fits it, enforced by the server." },
];

/** Fields of the panel; `changed(settings)` after each edit. */
export class Settings {
  constructor(form, changed) {
    this.form = form;
    this.inputs = new Map();
    for (const field of FIELDS) {
      const id = `set-${field.name}`;
      const shared = {
        id, name: field.name, "aria-describedby": `${id}-hint ${id}-error`, autocomplete: "off",
        placeholder: field.name === "system" || field.name === "stop" || field.name === "schema" ? "None" : "Default",
        oninput: () => {
          this.#check(field);
          changed(this.values());
        },
      };
      const input = field.rows
        ? el("textarea", { ...shared, rows: field.rows, spellcheck: !field.code && field.name === "system", class: field.code ? "code" : "" })
        : el("input", { ...shared, type: "text", inputMode: "decimal" });
      const error = el("span", { class: "field-error", id: `${id}-error` });
      this.inputs.set(field.name, { input, error });
      form.append(el("div", { class: field.rows ? "field" : "field short" },
        el("label", { htmlFor: id }, field.label), input,
        el("span", { class: "hint", id: `${id}-hint` }, field.hint), error));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  values() {
    return Object.fromEntries([...this.inputs].map(([name, { input }]) => [name, input.value]).filter(([, value]) => value !== ""));
  }

  show(values) {
    for (const field of FIELDS) {
      this.inputs.get(field.name).input.value = values[field.name] ?? "";
      this.#check(field);
    }
  }

  #check(field) {
    const { input } = this.inputs.get(field.name);
    let message = "";
    try {
      if (field.parse && input.value.trim() !== "") field.parse(input.value);
    } catch (error) {
      message = `${field.label} ${error.message}.`;
    }
    this.mark(field.name, message);
  }

  /** Shows an error at a field, or takes it away. */
  mark(name, message) {
    const { input, error } = this.inputs.get(name);
    error.textContent = message;
    input.setAttribute("aria-invalid", message ? "true" : "false");
  }
}

/** Settings as request fields; throws `{ field, message }` at the first that cannot be sent. */
export function requestFields(values) {
  const fields = {};
  for (const { name, label, param, parse } of FIELDS) {
    const text = values[name];
    if (!param || text === undefined || text.trim() === "") continue;
    try {
      fields[param] = parse(text);
    } catch (error) {
      throw Object.assign(new Error(`${label} ${error.message}.`), { field: name });
    }
  }
  return fields;
}

/** The field of the panel that a server means by `param`. */
export function fieldOf(param) {
  const top = String(param ?? "").split(/[.[]/)[0];
  if (top === "max_tokens") return "max_tokens";
  return FIELDS.find((field) => field.param === top)?.name ?? null;
}
