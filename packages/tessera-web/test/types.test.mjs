// Types of @mlc-ai/web-llm are the judge: each name that it exports is there, and code that is written for it compiles.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "../node_modules");
const TYPES = { theirs: join(modules, "@mlc-ai/web-llm/lib/index.d.ts"), ours: join(modules, "tessera-web/dist/index.d.ts") };

function program(types) {
  return ts.createProgram([join(here, "drop-in.ts"), types], {
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ["lib.es2023.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts", "lib.dom.asynciterable.d.ts"],
    strict: true, noEmit: true, skipLibCheck: true, types: [], paths: { webllm: [types] },
  });
}

function names(types) {
  const made = program(types);
  const checker = made.getTypeChecker();
  const symbol = checker.getSymbolAtLocation(made.getSourceFile(types));
  return checker.getExportsOfModule(symbol).map(({ name }) => name);
}

for (const [whose, types] of Object.entries(TYPES)) {
  test(`code for WebLLM compiles with ${whose}`, () => {
    const made = program(types);
    const found = ts.getPreEmitDiagnostics(made, made.getSourceFile(join(here, "drop-in.ts")));
    assert.equal(ts.formatDiagnostics(found, { getCurrentDirectory: () => here, getCanonicalFileName: (f) => f, getNewLine: () => "\n" }), "");
  });
}

test("each name that WebLLM exports is there, in node's entry too", async () => {
  const theirs = names(TYPES.theirs);
  assert.ok(theirs.length > 80, `${theirs.length} names`);
  const ours = new Set(names(TYPES.ours));
  assert.deepEqual(theirs.filter((name) => !ours.has(name)), []);
  const node = await import("tessera-web");
  const values = Object.keys(await import("@mlc-ai/web-llm"));
  assert.deepEqual(values.filter((name) => !(name in node)), []);
  const { prebuiltAppConfig: list } = await import("@mlc-ai/web-llm");
  const ids = ({ model_list }) => model_list.map(({ model_id, model }) => [model_id, model]);
  assert.deepEqual(ids(node.prebuiltAppConfig), ids(list));
});
