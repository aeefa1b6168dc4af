//! The texts of kernels: WGSL files with a few constants and functions put in front, so that one text serves every shape
//! and what a compiler sees is what the tests see.

use crate::layout::PARTS;
use std::fmt::Write as _;
use tessera_compute::program::Function;
use tessera_weights::arch::{Experts, Score};
use tessera_weights::config::Activation;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::Layout;
use tessera_weights::tensor::Form;

pub(crate) const FUNCTIONS: &str = include_str!("wgsl/functions.wgsl");
const TOTAL: &str = include_str!("wgsl/total.wgsl");
pub(crate) const NONE: &str = "const NONE = 0xffffffffu;\n";
const SHARE: &str = include_str!("wgsl/share.wgsl");

/// Positions that are attended to by themselves, and then merged.
pub const PART: usize = 512;

/// How many rows of the input a product takes at once.
pub const COLUMNS: [usize; 4] = [1, 2, 4, 8];

/// A function of `x`, in WGSL.
fn function(f: Function) -> String {
    match f {
        Function::Activation(a) => format!("{}(x)", activation(a)),
        Function::Scale(factor) => format!("x * {}", float(factor)),
        Function::Cap(most) => format!("cap(x, {})", float(most)),
        // NaN stays NaN.
        Function::Clip(most) => {
            format!("select(clamp(x, -{0}, {0}), x, is_nan(x))", float(most))
        }
    }
}

pub(crate) const fn activation(a: Activation) -> &'static str {
    match a {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => "relu",
        Activation::Relu2 => "relu2",
        Activation::Sigmoid => "sigmoid",
    }
}

/// A literal that every compiler reads as this very value.
fn float(x: f32) -> String {
    format!("bitcast<f32>({}u)", x.to_bits())
}

/// What an elementwise operation makes of `x`, `y`, the second input, and `o`, what the output holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Each {
    /// `x`.
    Copy,
    /// `o + scalar * x`.
    Add,
    /// A function of `x`.
    Map(Function),
    /// `activation(x) * y`.
    Gate(Activation),
    /// `x + vector * y`.
    BlendColumns,
    /// `x + z * y`, `z` a third input.
    BlendEach,
    /// `x` times the factor of the row's position.
    ByPosition,
    /// `y` for rows that are a call of their own.
    ByCall,
}

/// One thread, one value. `shares`: which of the inputs are in the buffer of the output.
pub fn each(op: Each, shares: [bool; 3]) -> String {
    let mut text = format!("{NONE}{FUNCTIONS}");
    text += "struct Args { count: u32, base: u32, width: u32, out_from: u32, out_stride: u32, out_base: u32, \
             x_from: u32, x_stride: u32, y_from: u32, y_stride: u32, z_from: u32, z_stride: u32, vector: u32, \
             scalar: f32, part: u32, x_step: u32, out_step: u32, picked: u32, table: u32, }\n\
             @group(0) @binding(0) var<uniform> args: Args;\n\
             @group(0) @binding(1) var<storage, read> step: array<u32>;\n\
             @group(0) @binding(3) var<storage, read_write> out: array<f32>;\n";
    let inputs = match op {
        Each::Gate(_) | Each::BlendColumns | Each::ByCall => 2,
        Each::BlendEach => 3,
        _ => 1,
    };
    for (i, name) in ["x", "y", "z"].into_iter().enumerate().take(inputs) {
        let (binding, from) = ([2, 5, 6][i], if shares[i] { "out" } else { name });
        if !shares[i] {
            let _ = writeln!(text, "@group(0) @binding({binding}) var<storage, read> {name}: array<f32>;");
        }
        let _ = writeln!(text, "fn read_{name}(i: u32) -> f32 {{ return {from}[i]; }}");
    }
    if op == Each::BlendColumns {
        text += "@group(0) @binding(4) var<storage, read> vectors: array<f32>;\n";
    }
    text += "@compute @workgroup_size(64)\n\
             fn main(@builtin(global_invocation_id) gid: vec3<u32>) {\n\
             let c = gid.x; let row = gid.y;\n\
             if (c >= args.width || row >= step[args.count]) { return; }\n\
             var source = row + step[args.base];\n\
             if (args.picked != 0u) { source = step[step[4] + row]; }\n\
             let within = (c / args.part) * args.x_step + c % args.part;\n\
             let at = (row + step[args.out_base]) * args.out_stride + args.out_from + (c / args.part) * args.out_step + c % args.part;\n\
             let x = read_x(source * args.x_stride + args.x_from + within);\n";
    if inputs > 1 {
        text += "let y = read_y(source * args.y_stride + args.y_from + c);\n";
    }
    if inputs > 2 {
        text += "let z = read_z(source * args.z_stride + args.z_from + c);\n";
    }
    let value = match op {
        Each::Copy => "x".to_owned(),
        Each::Add => "out[at] + args.scalar * x".to_owned(),
        Each::Map(f) => function(f),
        Each::Gate(a) => format!("{}(x) * y", activation(a)),
        Each::BlendColumns => "x + vectors[args.vector + c] * y".to_owned(),
        Each::BlendEach => "x + z * y".to_owned(),
        Each::ByPosition => "x * bitcast<f32>(step[step[args.table] + row])".to_owned(),
        Each::ByCall => {
            text += "var which = row;\nif (args.vector != 0u) { which = step[step[4] + row]; }\n";
            "select(x, y, step[step[6] + which] != 0u)".to_owned()
        }
    };
    let _ = writeln!(text, "out[at] = {value};\n}}");
    text
}

/// [`tessera_compute::program::Op::Norm`]; `shares`: whether input and output are one buffer.
pub fn norm(layer: bool, shares: bool) -> String {
    let x = "@group(0) @binding(2) var<storage, read> x: array<f32>;\n";
    let (x, from) = if shares { ("", "out") } else { (x, "x") };
    format!(
        "{NONE}const LAYER = {layer};\n{x}@group(0) @binding(3) var<storage, read_write> out: array<f32>;\n\
         fn read_x(i: u32) -> f32 {{ return {from}[i]; }}\n{TOTAL}{}",
        include_str!("wgsl/norm.wgsl")
    )
}

/// Sizes of attention that its texts are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Width of a head.
    pub dim: usize,
    /// How many of its dimensions turn.
    pub turned: usize,
    /// Whether neighbours turn together.
    pub neighbours: bool,
    /// Whether keys and values are halves.
    pub halves: bool,
    /// Whether the first keys are seen at another distance.
    pub sinks: bool,
}

impl Attention {
    fn front(self) -> String {
        let Attention { dim, turned, neighbours, halves, sinks } = self;
        let kv = if halves { include_str!("wgsl/kv_f16.wgsl") } else { include_str!("wgsl/kv_f32.wgsl") };
        format!(
            "{NONE}const DIM = {dim}u;\nconst TURNED = {turned}u;\nconst NEIGHBOURS = {neighbours};\n\
             const SINKS = {sinks};\nconst MOVED_DIM = {}u;\nconst VALUES = {}u;\n{}{kv}",
            if sinks { dim } else { 1 },
            dim.div_ceil(64),
            include_str!("wgsl/turn.wgsl"),
        )
    }

    /// Keys and values to their pages.
    pub fn append(self) -> String {
        without(&self.front(), "fn load_") + include_str!("wgsl/append.wgsl")
    }

    /// Queries over pages; with `split` each part of the positions by a workgroup of its own.
    pub fn attend(self, split: bool) -> String {
        // Keys and values are bound for reading only.
        let front = without(&self.front(), "fn store_");
        format!(
            "{front}const SPLIT = {split};\n{}{FUNCTIONS}{TOTAL}{SHARE}{}",
            constants(),
            include_str!("wgsl/attend.wgsl")
        )
    }

    /// What the parts come to.
    pub fn merge(self) -> String {
        format!("const DIM = {}u;\n{}{SHARE}{}", self.dim, constants(), include_str!("wgsl/merge.wgsl"))
    }
}

fn constants() -> String {
    format!("const PART = {PART}u;\nconst PARTS = {PARTS}u;\n")
}

/// Without the functions whose first line begins so.
fn without(text: &str, begin: &str) -> String {
    let mut skip = false;
    let keep = |line: &&str| {
        skip |= line.starts_with(begin);
        let kept = !skip;
        skip &= *line != "}";
        kept
    };
    text.lines().filter(keep).fold(String::new(), |text, line| text + line + "\n")
}

/// [`tessera_compute::program::Op::Conv`].
pub fn conv(kernel: usize, activation_of: Option<Activation>) -> String {
    let f = activation_of.map_or("x".to_owned(), |a| format!("{}(x)", activation(a)));
    format!(
        "{NONE}const KERNEL = {kernel}u;\n{FUNCTIONS}fn f(x: f32) -> f32 {{ return {f}; }}\n{}",
        include_str!("wgsl/conv.wgsl")
    )
}

/// [`tessera_compute::program::Op::Delta`]; `[keys, values, key, value]`.
pub fn delta([keys, values, key, value]: [usize; 4]) -> String {
    format!(
        "{NONE}const KEYS = {keys}u;\nconst VALUES = {values}u;\nconst KEY = {key}u;\nconst VALUE = {value}u;\n{FUNCTIONS}{}",
        include_str!("wgsl/delta.wgsl")
    )
}

/// [`tessera_compute::program::Op::Wkv`].
pub fn wkv(dim: usize) -> String {
    format!("{NONE}const DIM = {dim}u;\n{}", include_str!("wgsl/wkv.wgsl"))
}

/// [`tessera_compute::program::Op::Route`].
pub fn route(experts: &Experts) -> String {
    let groups = experts.groups;
    let count = groups.map_or(0, |g| g.count);
    format!(
        "{NONE}const EXPERTS = {}u;\nconst TOP_K = {}u;\nconst SOFTMAX = {};\nconst RENORMALISE = {};\n\
         const GROUPS = {count}u;\nconst GROUPS_LEN = {}u;\nconst GROUP_SIZE = {}u;\nconst KEPT = {}u;\n\
         const TWO_BEST = {};\n{FUNCTIONS}{}",
        experts.count,
        experts.top_k.min(experts.count),
        experts.score == Score::Softmax,
        experts.renormalise,
        count.max(1),
        experts.count / count.max(1),
        groups.map_or(0, |g| g.kept),
        groups.is_some_and(|g| g.two_best),
        include_str!("wgsl/route.wgsl")
    )
}

/// The experts of each row; see [`tessera_compute::program::Op::Experts`].
pub fn experts_list(count: usize, top_k: usize) -> String {
    format!(
        "{NONE}const EXPERTS = {count}u;\nconst TOP_K = {top_k}u;\n{}",
        include_str!("wgsl/experts_list.wgsl")
    )
}

/// One matrix of each of them.
pub fn expert(of: Form, top_k: usize) -> String {
    format!("{NONE}const TOP_K = {top_k}u;\n{}{}", form(of), include_str!("wgsl/expert.wgsl"))
}

/// Between their two.
pub fn experts_gate(of: Activation, top_k: usize) -> String {
    format!(
        "const TOP_K = {top_k}u;\n{FUNCTIONS}fn f(x: f32) -> f32 {{ return {}(x); }}\n{}",
        activation(of),
        include_str!("wgsl/experts_gate.wgsl")
    )
}

/// What they add up to.
pub fn experts_sum(top_k: usize) -> String {
    format!("{NONE}const TOP_K = {top_k}u;\n{}", include_str!("wgsl/experts_sum.wgsl"))
}

/// Puts every sequence's state where it will be.
pub fn states() -> String {
    format!("{NONE}{}", include_str!("wgsl/states.wgsl"))
}

/// The largest logit.
pub fn argmax() -> String {
    format!("{NONE}{}", include_str!("wgsl/argmax.wgsl"))
}

/// A buffer to another, to measure memory with.
pub fn copy() -> String {
    include_str!("wgsl/copy.wgsl").to_owned()
}

/// A page to another.
pub fn copy_page() -> String {
    include_str!("wgsl/copy_page.wgsl").to_owned()
}

/// `scale`: that of a group; `eight`: the weights of columns `k..k + 8` of a row, before their scale.
pub(crate) fn form(of: Form) -> String {
    let [scale, eight] = parts(of);
    scale + &eight
}

pub(crate) fn parts(form: Form) -> [String; 2] {
    let scales = "@group(0) @binding(7) var<storage, read> scales: array<u32>;\n";
    let element = |array: &str, dtype: DType| match dtype {
        DType::F32 => format!("bitcast<f32>({array}[i])"),
        DType::F16 => format!("unpack2x16float({array}[i / 2u])[i % 2u]"),
        _ => format!(
            "bitcast<f32>(select({array}[i / 2u] << 16u, {array}[i / 2u] & 0xffff0000u, i % 2u == 1u))"
        ),
    };
    match form {
        Form::Dense(dtype) => [
            "const GROUP = 32u;\nfn scale(n: u32, g: u32, rows: u32, groups: u32) -> f32 { return 1.0; }\n"
                .to_owned(),
            format!(
                "fn element(i: u32) -> f32 {{ return {}; }}\n\
             fn eight(n: u32, k: u32, cols: u32, rows: u32, words: u32) -> array<f32, 8> {{\n\
             var w: array<f32, 8>;\n\
             for (var i = 0u; i < 8u; i++) {{ if (k + i < cols) {{ w[i] = element(n * cols + k + i); }} }}\n\
             return w;\n}}\n",
                element("codes", dtype)
            ),
        ],
        Form::Grouped { format, layout, scale } => {
            let (bits, per) = (format.bits, format.per_word);
            let (mask, zero) = ((1u32 << bits) - 1, (1u32 << (bits - 1)) - 1);
            let (word, at) = match layout {
                Layout::Nk => (format!("n * words + (k + i) / {per}u"), "n * groups + g"),
                Layout::Kn => (format!("((k + i) / {per}u) * rows + n"), "g * rows + n"),
            };
            [
                format!(
                    "const GROUP = {}u;\n{scales}\
                     fn scale(n: u32, g: u32, rows: u32, groups: u32) -> f32 {{ let i = {at}; return {}; }}\n",
                    format.group,
                    element("scales", scale)
                ),
                format!(
                    "fn eight(n: u32, k: u32, cols: u32, rows: u32, words: u32) -> array<f32, 8> {{\n\
                 var w: array<f32, 8>;\n\
                 for (var i = 0u; i < 8u; i++) {{\n\
                 if (k + i < cols) {{\n\
                 w[i] = f32((codes[{word}] >> (((k + i) % {per}u) * {bits}u)) & {mask}u) - {zero}.0;\n}}\n}}\n\
                 return w;\n}}\n"
                ),
            ]
        }
    }
}

/// [`tessera_compute::program::Op::Embed`].
pub fn embed(of: Form) -> String {
    format!("{NONE}{}{}", form(of), include_str!("wgsl/embed.wgsl"))
}
