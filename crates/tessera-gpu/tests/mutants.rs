//! Kernels with one thing wrong, each of which the self-test must find: it is what stands between a driver that is silently
//! wrong and an answer.

mod support;

use pollster::block_on;
use std::sync::{Arc, Mutex};
use tessera_gpu::selftest::{Case, cases};
use tessera_gpu::{Config, GpuBackend};

/// What is wrong, the beginning of the cases that must find it, and the edits: each is found in a text that they compile.
type Mutant = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const INT4: &str = "linear [7, 160] int4 in groups of 32, float16 scales";
const INT4_TURNED: &str = "linear [7, 160] int4 in groups of 32, transposed";
const INT3: &str = "linear [7, 160] int3 in groups of 40, float16 scales";
const FEW: &str = "feed forward [640, 33] float32, 2 rows";
const STAGED: &str = "linear [130, 320] float32, 19 rows";
const TURNED: &str = "attend 65 positions, Heads { q: 4";
const STEEP: &str = "attend 65 positions, Heads { q: 2";
const SPLIT: &str = "attend 520";
const WINDOW: &str = "attend 130";
// A store that is to be missing stays where nothing reaches it: without it a binding would be missing too, which is
// another error.

const PRODUCTS: &[Mutant] = &[
    (
        "the halves of a byte swapped",
        INT4,
        &[
            ("let e0 = vec4<f32>(u", "let swapped = vec4<f32>(u"),
            ("let o0 = vec4<f32>(u", "let e0 = vec4<f32>(u"),
            ("let swapped = ", "let o0 = "),
        ],
    ),
    ("neighbours of a word swapped", INT4_TURNED, &[("((k + i) % 8u)", "((k + i) % 8u ^ 1u)")]),
    ("8 for 7", INT4, &[(" - 7.0", " - 8.0")]),
    ("8 for 7, transposed", INT4_TURNED, &[(" - 7.0", " - 8.0")]),
    ("4 for 3", INT3, &[(" - 3.0", " - 4.0")]),
    (
        "the scale of the next group",
        INT4,
        &[("let i = n * groups + g;", "let i = n * groups + min(g + 1u, groups - 1u);")],
    ),
    (
        "the scale of the next group, transposed",
        INT4_TURNED,
        &[("let i = g * rows + n;", "let i = min(g + 1u, groups - 1u) * rows + n;")],
    ),
    (
        "the scale of the next row, transposed",
        INT4_TURNED,
        &[("let i = g * rows + n;", "let i = g * rows + min(n + 1u, rows - 1u);")],
    ),
    ("the last group dropped", INT4, &[("g < args.groups; g += 16u", "g + 1u < args.groups; g += 16u")]),
    (
        "the last group dropped, staged",
        STAGED,
        &[("if (g0 + part < args.groups)", "if (g0 + part + 1u < args.groups)")],
    ),
    (
        "what is behind the last column",
        "linear [7, 328] float32",
        &[("if (k < args.cols) { return x", "if (k <= args.cols) { return x")],
    ),
    (
        "the last lane's sum dropped",
        FEW,
        &[("j < 16u; j++) { sum = sum + part_of", "j < 15u; j++) { sum = sum + part_of")],
    ),
    (
        "three lanes for sixteen",
        INT3,
        &[("j < 16u; j++) { sum = sum + part_of", "j < 3u; j++) { sum = sum + part_of")],
    ),
    (
        "no barrier before lanes are added",
        FEW,
        &[(
            "    workgroupBarrier();\n    for (var i = lid; i < OUTPUTS * COLS",
            "    for (var i = lid; i < OUTPUTS * COLS",
        )],
    ),
    ("no barrier behind the tile", STAGED, &[("] = y;\n}\nworkgroupBarrier();", "] = y;\n}")]),
    (
        "no barrier before the tile",
        STAGED,
        &[("workgroupBarrier();\nfor (var i = lid; i < 32u * COLS", "for (var i = lid; i < 32u * COLS")],
    ),
    (
        "the next row in the tile",
        STAGED,
        &[("(min(row0 + i / 32u, last)", "(min(row0 + i / 32u + 1u, last)")],
    ),
    ("the next columns in the tile", STAGED, &[("+ 4u * (i % 2u);", "+ 4u * ((i + 1u) % 2u);")]),
    (
        "the next lane's place in the tile",
        STAGED,
        &[("* 16u + part] = y;", "* 16u + (part + 1u) % 16u] = y;")],
    ),
    (
        "inputs as halves",
        "linear [65, 320] float32, 4 rows, Outliers",
        &[("return x[i / 4u];", "return quantizeToF16(x[i / 4u]);")],
    ),
    ("inputs as halves, no outliers", FEW, &[("return x[i / 4u];", "return quantizeToF16(x[i / 4u]);")]),
    (
        "weights as bfloat16",
        "linear [1, 40] float32",
        &[("bitcast<f32>(codes[i])", "bitcast<f32>(codes[i] & 0xffff0000u)")],
    ),
    (
        "nothing added to what was there",
        "linear [1, 40] float32",
        &[("if (args.add != 0u) { sum = sum + out[at]; }", "")],
    ),
    (
        "the bias forgotten",
        "bias [7, 160] float32",
        &[("sum = sum + vectors[", "sum = sum + 0.0 * vectors[")],
    ),
    (
        "the bias added twice",
        "bias [7, 160] float32",
        &[("sum = sum + vectors[", "sum = sum + 2.0 * vectors[")],
    ),
    (
        "the bias of the first outputs",
        "bias [7, 160] int4",
        &[("vectors[args.bias + whole]", "vectors[args.bias + whole % 4u]")],
    ),
    (
        "gate and up swapped",
        FEW,
        &[(
            "f(sum_of(o, c) * factor) * (sum_of(o + 1u, c) * factor)",
            "f(sum_of(o + 1u, c) * factor) * (sum_of(o, c) * factor)",
        )],
    ),
    ("the product's norm without epsilon", FEW, &[("/ f32(args.cols) + args.eps)", "/ f32(args.cols))")]),
    (
        "the product's norm without weight",
        FEW,
        &[("vec4<f32>(vectors[i], vectors[i + 1u], vectors[i + 2u], vectors[i + 3u])", "vec4<f32>(1.0)")],
    ),
    ("the product's norm of half the squares", FEW, &[("p0 = fma(v0.z, v0.z, p0);", "")]),
    (
        "the norm of the first row for all",
        FEW,
        &[
            ("var all = squares[c * 16u];", "var all = squares[0];"),
            ("all = all + squares[c * 16u + j];", "all = all + squares[j];"),
        ],
    ),
    (
        "nothing written",
        "linear [1, 40] float32",
        &[("            out[at] = sum;", "            if (args.count == 0xffffff00u) { out[at] = sum; }")],
    ),
    (
        "the last output not written",
        INT4,
        &[("if (n < args.rows && row <= last)", "if (n + 1u < args.rows && row <= last)")],
    ),
    (
        "the last row not written",
        STAGED,
        &[("if (n < args.rows && row <= last)", "if (n < args.rows && row < last)")],
    ),
];

const OTHERS: &[Mutant] = &[
    ("the norm without epsilon", "norm Rms of 576", &[("/ n + args.eps)", "/ n)")]),
    (
        "the norm without weight",
        "norm Rms of 576",
        &[("y = y * vectors[args.weight + wid.x * args.weight_step + i];", "")],
    ),
    (
        "the norm without bias",
        "norm Layer",
        &[("y = y + vectors[args.bias + wid.x * args.bias_step + i];", "")],
    ),
    (
        "the norm without its mean",
        "norm Layer",
        &[("mean = total(lane) / n;", "mean = min(total(lane), 0.0) * 0.0;")],
    ),
    (
        "no barrier in a sum",
        "norm Rms of 576",
        &[
            ("fn total(lane: u32) -> f32 {\n    workgroupBarrier();", "fn total(lane: u32) -> f32 {"),
            ("lanes[lane + n]; }\n        workgroupBarrier();", "lanes[lane + n]; }"),
        ],
    ),
    (
        "the norm not written",
        "norm Rms of 576",
        &[("out[o0 + i] = y;", "if (args.count == 0xffffff00u) { out[o0 + i] = y; }")],
    ),
    ("gate and up swapped", "gate Silu", &[("out[at] = silu(x) * y;", "out[at] = silu(y) * x;")]),
    (
        "the gate not written",
        "gate Silu",
        &[("out[at] = silu(x) * y;", "if (args.count == 0xffffff00u) { out[at] = silu(x) * y; }")],
    ),
    ("GELU for its tanh", "gate GeluTanh", &[("out[at] = gelu_tanh(x)", "out[at] = gelu(x)")]),
    (
        "the first group's scale for a row of a table",
        "embed 160 int4",
        &[("scale(n, k / GROUP,", "scale(n, 0u,")],
    ),
    ("a row of a table not added", "embed 160 float16", &[("if (args.add != 0u) { x += out[at + i]; }", "")]),
    (
        "the next row of a table",
        "embed 160 bfloat16",
        &[("let n = id - args.row0;", "let n = min(id - args.row0 + 1u, args.rows - 1u);")],
    ),
    ("a table's factor forgotten", "embed 160 float32", &[(" * args.scale;", ";")]),
    (
        "the table not written",
        "embed 160 float32",
        &[("            out[at + i] = x;", "            if (args.cols == 0xffffff00u) { out[at + i] = x; }")],
    ),
];

const ATTENTION: &[Mutant] = &[
    (
        "softmax without its maximum",
        STEEP,
        &[("let now = max(m, most(lane));", "let now = most(lane) * 0.0;")],
    ),
    (
        "the maximum of the last page only",
        STEEP,
        &[
            ("let now = max(m, most(lane));", "let now = most(lane);"),
            ("let before = share(m, now);", "let before = 1.0;"),
        ],
    ),
    ("the page before", TURNED, &[("step[pages + p]", "step[pages + max(p, 1u) - 1u]")]),
    ("the next page for the last of a page", TURNED, &[("position / 64u]", "(position + 1u) / 64u]")]),
    (
        "the next place of a page",
        TURNED,
        &[(
            "store_key(page * args.page, head, position % 64u",
            "store_key(page * args.page, head, (position + 1u) % 64u",
        )],
    ),
    ("read from pages in order", TURNED, &[("step[pages + p] * args.page", "p * args.page")]),
    (
        "written to pages in order",
        TURNED,
        &[(
            "let page = step[step[step[5] + 2u * row + args.kind] + position / 64u];",
            "let page = position / 64u;",
        )],
    ),
    (
        "pages in order, read and written",
        TURNED,
        &[
            ("step[pages + p] * args.page", "p * args.page"),
            (
                "let page = step[step[step[5] + 2u * row + args.kind] + position / 64u];",
                "let page = position / 64u;",
            ),
        ],
    ),
    ("turned the other way", TURNED, &[("+ other * bitcast", "- other * bitcast")]),
    (
        "keys not turned",
        TURNED,
        &[("vec2<f32>(key(row, at, d), key(row, at, d + 1u))", "vec2<f32>(k[at + d], k[at + d + 1u])")],
    ),
    ("halves for neighbours", WINDOW, &[("const NEIGHBOURS = true;", "const NEIGHBOURS = false;")]),
    ("the window one longer", WINDOW, &[("position >= begin &&", "position + 1u >= begin &&")]),
    ("the window one shorter", WINDOW, &[("position >= begin &&", "position > begin &&")]),
    ("the window's first page left out", WINDOW, &[("(p + 1u) * 64u <= begin", "p * 64u <= begin")]),
    ("the next position seen", TURNED, &[("position < end)", "position <= end)")]),
    (
        "the head beside for keys and values",
        TURNED,
        &[("let kv_head = head / args.group;", "let kv_head = head % 2u;")],
    ),
    (
        "no barriers before the maximum is read",
        TURNED,
        &[
            ("fn most(lane: u32) -> f32 {\n    workgroupBarrier();", "fn most(lane: u32) -> f32 {"),
            (
                "max(lanes[lane], lanes[lane + n]); }\n        workgroupBarrier();",
                "max(lanes[lane], lanes[lane + n]); }",
            ),
        ],
    ),
    (
        "the part before forgotten",
        SPLIT,
        &[("all_o[i] = fma(o[i], here, all_o[i] * before);", "all_o[i] = o[i] * here;")],
    ),
    ("a part left out", SPLIT, &[("part * PART < end; part++", "(part + 1u) * PART < end; part++")]),
    (
        "parts added without their maxima",
        SPLIT,
        &[(
            "let here = share(m, now);\n            all_l = fma(parts",
            "let here = 1.0;\n            all_l = fma(parts",
        )],
    ),
    ("the first part twice", SPLIT, &[("let at = begin + part * (DIM + 2u);", "let at = begin;")]),
    (
        "keys not written",
        TURNED,
        &[(
            "    store_key(",
            "    if (args.heads < 1000u) { store_value(page * args.page, args.heads, head, position % 64u, pair, vec2<f32>(v[begin], v[begin + 1u])); return; }\n    store_key(",
        )],
    ),
    (
        "values not written",
        TURNED,
        &[("    store_value(", "    if (args.heads < 1000u) { return; }\n    store_value(")],
    ),
    (
        "attention not written",
        TURNED,
        &[(
            "{ out[o0 + d] = all_o[i] / all_l; }",
            "{ if (args.count == 0xffffff00u) { out[o0 + d] = all_o[i] / all_l; } }",
        )],
    ),
    (
        "parts not written",
        SPLIT,
        &[("{ out[to + d] = o[i]; }", "{ if (args.count == 0xffffff00u) { out[to + d] = o[i]; } }")],
    ),
    (
        "the merged parts not written",
        SPLIT,
        &[(
            "out[o0 + d] = all_o / all_l;",
            "if (args.count == 0xffffff00u) { out[o0 + d] = all_o / all_l; }",
        )],
    ),
    (
        "a page not copied",
        TURNED,
        &[("if (gid.x < args.len) {", "if (gid.x < args.len && args.len == 0xffffff00u) {")],
    ),
    ("the end of a page not copied", TURNED, &[("if (gid.x < args.len) {", "if (gid.x < args.len / 2u) {")]),
];

/// What became of the texts.
#[derive(Default)]
struct Seen {
    /// For each edit, whether a text had what it replaces.
    found: Vec<bool>,
    /// Texts that are none any more.
    invalid: Vec<String>,
}

/// The first case that finds it, and how; what is wrong with the mutant or with the self-test otherwise.
fn run(gpu: &tessera_gpu::Gpu, all: &[Case], (name, begins, edits): Mutant) -> Result<String, String> {
    let seen = Arc::new(Mutex::new(Seen { found: vec![false; edits.len()], invalid: Vec::new() }));
    let told = seen.clone();
    let edited = gpu.edited(move |text| {
        let mut seen = told.lock().unwrap();
        let mut out = text.to_owned();
        for (i, (from, to)) in edits.iter().enumerate() {
            seen.found[i] |= out.contains(from);
            out = out.replace(from, to);
        }
        if out != text
            && let Err(e) = naga::front::wgsl::parse_str(&out)
        {
            seen.invalid.push(e.emit_to_string(&out));
        }
        out
    });
    // As by default, but with fewer outputs a lane: drivers take long for those that are written out.
    let config = Config { halves: false, outputs: [2, 1, 1, 1], staged: Some(1), ..Config::default() };
    let backend = GpuBackend::new(edited, config);
    let mut cases = all.iter().filter(|case| case.name.starts_with(begins)).peekable();
    if cases.peek().is_none() {
        return Err(format!("{name}: no case begins with {begins:?}"));
    }
    let found = cases.find_map(|case| block_on(case.check(&backend, false)).err());
    let seen = seen.lock().unwrap();
    if let Some(invalid) = seen.invalid.first() {
        return Err(format!("{name}: {invalid}"));
    }
    if let Some(missing) = seen.found.iter().position(|found| !found) {
        return Err(format!("{name}: no text of {begins:?} has {:?}", edits[missing].0));
    }
    match found {
        // What the device says of a text is not what the self-test finds.
        Some(what)
            if ["value ", "the same input", "the last row", "rows "].iter().any(|w| what.starts_with(w)) =>
        {
            Ok(what)
        }
        Some(what) => Err(format!("{name}: {what}")),
        // Threads of hardware that run side by side may get away without.
        None if name.starts_with("no barrier") && !gpu.describe().software => Ok("not seen here".to_owned()),
        None => Err(format!("{name}: survives {begins:?}")),
    }
}

fn all_are_found(mutants: &[Mutant]) {
    let Some(gpu) = support::device().map(|gpu| gpu.poisoned()) else { return };
    let cases = cases();
    let mut wrong = Vec::new();
    for mutant in mutants {
        let begun = std::time::Instant::now();
        match run(&gpu, &cases, *mutant) {
            Ok(what) => println!("{:5} ms  {}: {what}", begun.elapsed().as_millis(), mutant.0),
            Err(what) => wrong.push(what),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn products_that_are_wrong_are_found() {
    all_are_found(PRODUCTS);
}

#[test]
fn attention_that_is_wrong_is_found() {
    all_are_found(ATTENTION);
}

#[test]
fn norms_gates_and_tables_that_are_wrong_are_found() {
    all_are_found(OTHERS);
}
