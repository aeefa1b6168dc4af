// Elements. Nothing here reads HTML from text.

export const at = (id) => document.getElementById(id);

/** An element with properties and children: nodes and texts. */
export function el(tag, props = {}, children = []) {
  const node = Object.assign(document.createElement(tag), props);
  // One by one: a text may have more parts than a call has arguments.
  for (const child of children) node.append(child);
  return node;
}

/** A button that copies a node's text, or selects it where the browser does not let a page copy. */
export function copyButton(node) {
  const button = el("button", { type: "button", className: "copy" }, ["Copy"]);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(node.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(node);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}
