//! The text of products: one kernel for a row of the input and for many, with the same sums in the same order.

use crate::kernels::{FUNCTIONS, NONE, activation, form, parts};
use std::fmt::Write as _;
use tessera_weights::config::Activation;
use tessera_weights::scheme::Layout;
use tessera_weights::tensor::Form;

/// What a product is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// How the matrix is stored.
    pub form: Form,
    /// Rows of the input at once.
    pub columns: usize,
    /// Outputs of a lane.
    pub rows: usize,
    /// Whether the input can be read four values at a time.
    pub fours: bool,
    /// Whether the matrix ends in the middle of a group.
    pub tail: bool,
    /// Whether the input is divided by its root mean square, and multiplied by a weight.
    pub norm: bool,
    /// Whether an output is made of two rows of the matrix: `activation(gate) * up`.
    pub gate: Option<Activation>,
    /// Whether the input goes through the workgroup's memory, for all of its lanes at once.
    pub staged: bool,
}

impl Product {
    /// Whether codes are read four words at a time: a group of 4-bit codes at once.
    const fn wide(self) -> bool {
        matches!(self.form, Form::Grouped { format, layout: Layout::Nk, .. } if format.bits == 4)
            && !self.tail
    }

    /// Rows of the matrix that a lane reads.
    const fn read(self) -> usize {
        if self.gate.is_some() { 2 * self.rows } else { self.rows }
    }

    /// [`tessera_compute::program::Op::Linear`] and `PerHead`, with the norm before and the gate behind.
    pub fn text(self) -> String {
        let Product { form: of, columns, rows, fours, tail, norm, gate, staged } = self;
        let wide = self.wide();
        let mut text = format!(
            "{NONE}const COLS = {columns}u;\nconst MADE = {rows}u;\nconst ROWS = {}u;\nconst NORM = {norm};\n\
             const GATE = {};\nconst LEN = {}u;\n",
            self.read(),
            gate.is_some(),
            if norm { columns * 16 } else { 1 },
        );
        let (four, read) = if fours {
            ("vec4<f32>", "return x[i / 4u];")
        } else {
            ("f32", "return vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);")
        };
        let _ = writeln!(text, "@group(0) @binding(2) var<storage, read> x: array<{four}>;");
        if tail {
            // What lies behind the last column is another activation's, or nobody's.
            let one = if fours { "x[i / 4u][i % 4u]" } else { "x[i]" };
            let _ = writeln!(
                text,
                "fn one(i: u32, k: u32) -> f32 {{ if (k < args.cols) {{ return {one}; }} return 0.0; }}"
            );
            text += "fn four(i: u32, k: u32) -> vec4<f32> { return vec4<f32>(one(i, k), one(i + 1u, k + 1u), one(i + 2u, k + 2u), one(i + 3u, k + 3u)); }\n";
        } else {
            let _ = writeln!(text, "fn four(i: u32, k: u32) -> vec4<f32> {{ {read} }}");
        }
        if let Some(gate) = gate {
            let _ = writeln!(text, "{FUNCTIONS}fn f(x: f32) -> f32 {{ return {}(x); }}", activation(gate));
        } else {
            text += "fn f(x: f32) -> f32 { return x; }\n";
        }
        // What four columns of a lane come to lies together where the input's fours did.
        text += if staged {
            "const ALL = max(128u * COLS / 4u, 16u * ROWS * COLS);\n\
             var<workgroup> shared_: array<vec4<f32>, ALL>;\n\
             fn part_of(o: u32, c: u32, lane: u32) -> f32 { return shared_[(o * (COLS / 4u) + c / 4u) * 16u + lane][c % 4u]; }\n"
        } else {
            "var<workgroup> shared_: array<f32, 64u * ROWS * COLS>;\n\
             fn part_of(o: u32, c: u32, lane: u32) -> f32 { return shared_[(o * COLS + c) * 16u + lane]; }\n"
        };
        let codes = if wide { "vec4<u32>" } else { "u32" };
        // The functions that read single words do not fit an array of four: only `scale` is used then.
        text += &if wide { parts(of)[0].clone() } else { form(of) };
        let whole = include_str!("wgsl/linear.wgsl").replace("array<CODES>", &format!("array<{codes}>"));
        text + &whole.replace("//BEGIN\n", &self.body())
    }

    fn body(self) -> String {
        let Product { form: of, columns, norm, staged, .. } = self;
        let (wide, rows) = (self.wide(), self.read());
        let chunks = match of {
            Form::Grouped { format, .. } => format.group / 8,
            Form::Dense(_) => 4,
        };
        let mut b = String::new();
        if !staged {
            for c in 0..columns {
                let _ =
                    writeln!(b, "let x{c} = (min(row0 + {c}u, last) + base) * args.x_stride + args.x_from;");
            }
        }
        for r in 0..rows {
            let (n, half) = if self.gate.is_some() {
                (r / 2, if r % 2 == 0 { "" } else { " + args.half" })
            } else {
                (r, "")
            };
            let _ = writeln!(b, "let m{r} = min(n0 + {n}u, args.rows - 1u) + args.skip{half};");
        }
        // All outputs of a lane lie in one head of the input: `each` is a multiple of them, or all.
        b += "let head = ((args.row0 + m0 - args.skip) / args.each) * args.x_step;\n";
        self.each(&mut b, |r, c| format!("var a{r}_{c} = 0.0;"));
        if norm {
            (0..columns).for_each(|c| b += &format!("var p{c} = 0.0;\n"));
        }
        // Lanes without a group of their own read the last one, and zeros for the input.
        b += if staged {
            "for (var g0 = 0u; g0 < args.groups; g0 += 16u) {\nlet g = min(g0 + lane, args.groups - 1u);\n"
        } else {
            "for (var g = lane; g < args.groups; g += 16u) {\n"
        };
        for r in 0..rows {
            if wide {
                let _ = writeln!(b, "let q{r} = codes[(m{r} * args.words) / 4u + g];");
            }
            let _ = writeln!(b, "let s{r} = scale(m{r}, g, args.all, args.groups);");
        }
        self.each(&mut b, |r, c| format!("var t{r}_{c} = 0.0;"));
        for chunk in 0..chunks {
            self.chunk(&mut b, chunk);
        }
        self.each(&mut b, |r, c| format!("a{r}_{c} = fma(s{r}, t{r}_{c}, a{r}_{c});"));
        b += "}\n";
        if staged {
            b += "workgroupBarrier();\n";
            for r in 0..rows {
                for four in 0..columns / 4 {
                    let a: Vec<String> = (0..4).map(|c| format!("a{r}_{}", 4 * four + c)).collect();
                    let _ = writeln!(
                        b,
                        "shared_[((sub * ROWS + {r}u) * (COLS / 4u) + {four}u) * 16u + lane] = vec4<f32>({});",
                        a.join(", ")
                    );
                }
            }
        } else {
            self.each(&mut b, |r, c| {
                format!("shared_[((sub * ROWS + {r}u) * COLS + {c}u) * 16u + lane] = a{r}_{c};")
            });
        }
        if norm {
            for c in 0..columns {
                let _ = writeln!(b, "if (sub == {}u) {{ squares[{c}u * 16u + lane] = p{c}; }}", c % 4);
            }
        }
        b
    }

    /// Eight columns of the matrix.
    fn chunk(self, b: &mut String, chunk: usize) {
        let Product { columns, norm, staged, .. } = self;
        let (wide, rows) = (self.wide(), self.read());
        let _ = writeln!(b, "{{\nlet k = g * GROUP + {}u;", chunk * 8);
        if staged {
            // 32 fours for each row of the input: two for each lane's group.
            b.push_str("workgroupBarrier();\n");
            let _ = writeln!(
                b,
                "for (var i = lid; i < 32u * COLS; i += 64u) {{\n\
                 let part = (i % 32u) / 2u;\nlet at = (g0 + part) * GROUP + {}u + 4u * (i % 2u);\n\
                 let xi = (min(row0 + i / 32u, last) + base) * args.x_stride + args.x_from;\n\
                 var y = vec4<f32>(0.0);\n\
                 if (g0 + part < args.groups) {{ y = four(xi + head + at, at); }}\n\
                 shared_[(i / 32u * 2u + i % 2u) * 16u + part] = y;\n}}\n\
                 workgroupBarrier();",
                chunk * 8
            );
        }
        for c in 0..columns {
            for (name, half) in [("u", 0), ("v", 1)] {
                let _ = match staged {
                    true => writeln!(b, "var {name}{c} = shared_[{}u * 16u + lane];", 2 * c + half),
                    false => {
                        writeln!(b, "var {name}{c} = four(x{c} + head + k + {0}u, k + {0}u);", 4 * half)
                    }
                };
            }
        }
        if norm {
            for c in 0..columns {
                let _ = writeln!(b, "if (sub == {}u) {{", c % 4);
                for x in
                    ["u", "v"].into_iter().flat_map(|x| ["x", "y", "z", "w"].map(|l| format!("{x}{c}.{l}")))
                {
                    let _ = writeln!(b, "p{c} = fma({x}, {x}, p{c});");
                }
                b.push_str("}\n");
            }
            b.push_str("let nu = norm_of(k);\nlet nv = norm_of(k + 4u);\n");
            (0..columns).for_each(|c| *b += &format!("u{c} = u{c} * nu;\nv{c} = v{c} * nv;\n"));
        }
        for r in 0..rows {
            if wide {
                let word = ["x", "y", "z", "w"][chunk];
                let _ = writeln!(
                    b,
                    "let e{r} = vec4<f32>(unpack4xU8(q{r}.{word} & 0x0f0f0f0fu)) - 7.0;\n\
                     let o{r} = vec4<f32>(unpack4xU8((q{r}.{word} >> 4u) & 0x0f0f0f0fu)) - 7.0;"
                );
            } else {
                let _ = writeln!(b, "let w{r} = eight(m{r}, k, args.cols, args.all, args.words);");
            }
        }
        for i in 0..8 {
            let lane = ["x", "y", "z", "w"];
            self.each(b, |r, c| {
                let w = match (wide, i % 2) {
                    (true, 0) => format!("e{r}.{}", lane[i / 2]),
                    (true, _) => format!("o{r}.{}", lane[i / 2]),
                    (false, _) => format!("w{r}[{i}]"),
                };
                let x = if i < 4 { format!("u{c}.{}", lane[i]) } else { format!("v{c}.{}", lane[i - 4]) };
                format!("t{r}_{c} = fma({w}, {x}, t{r}_{c});")
            });
        }
        b.push_str("}\n");
    }

    /// A line for each of the lane's rows and columns.
    fn each(self, b: &mut String, line: impl Fn(usize, usize) -> String) {
        for r in 0..self.read() {
            for c in 0..self.columns {
                *b += &line(r, c);
                b.push('\n');
            }
        }
    }
}
