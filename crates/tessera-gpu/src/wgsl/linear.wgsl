// `y (+)= f(x) Wᵀ (+ b)` for COLS rows of x at once: 16 lanes share an output, MADE outputs a lane. Group `j` of an output
// goes to lane `j % 16`, in a group the products are added one after another, lanes in ascending order: so a row's bits
// are the same whatever is computed beside it. NORM: f is the RMS norm, whose factor comes last, squares being summed as
// products are. GATE: an output is made of two rows of W, `half` apart.
struct Args {
    count: u32, base: u32, x_from: u32, x_stride: u32, out_from: u32, out_stride: u32, cols: u32, rows: u32,
    row0: u32, words: u32, groups: u32, bias: u32, add: u32, each: u32, x_step: u32, out_step: u32, out_base: u32,
    skip: u32, all: u32, half: u32, norm: u32, eps: f32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
@group(0) @binding(6) var<storage, read> codes: array<CODES>;

const OUTPUTS = 4u * MADE;
var<workgroup> squares: array<f32, LEN>;

fn norm_of(k: u32) -> vec4<f32> {
    let i = args.norm + k;
    return vec4<f32>(vectors[i], vectors[i + 1u], vectors[i + 2u], vectors[i + 3u]);
}
// What the lanes of an output came to.
fn sum_of(o: u32, c: u32) -> f32 {
    var sum = part_of(o, c, 0u);
    for (var j = 1u; j < 16u; j++) { sum = sum + part_of(o, c, j); }
    return sum;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) many: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let lane = lid % 16u;
    let sub = lid / 16u;
    let first = (wid.x + wid.z * many.x) * OUTPUTS;
    let n0 = first + sub * MADE;
    let row0 = wid.y * COLS;
    let last = step[args.count] - 1u;
    let base = step[args.base];
//BEGIN
    workgroupBarrier();
    for (var i = lid; i < OUTPUTS * COLS; i += 64u) {
        let made = i / COLS;
        let c = i % COLS;
        let n = first + made;
        let row = row0 + c;
        if (n < args.rows && row <= last) {
            var factor = 1.0;
            if (NORM) {
                var all = squares[c * 16u];
                for (var j = 1u; j < 16u; j++) { all = all + squares[c * 16u + j]; }
                factor = 1.0 / sqrt(all / f32(args.cols) + args.eps);
            }
            var sum: f32;
            if (GATE) {
                let o = made / MADE * ROWS + made % MADE * 2u;
                sum = f(sum_of(o, c) * factor) * (sum_of(o + 1u, c) * factor);
            } else {
                sum = sum_of(made, c) * factor;
            }
            let whole = args.row0 + n;
            let at = (row + step[args.out_base]) * args.out_stride + args.out_from
                + (whole / args.each) * args.out_step + whole % args.each;
            if (args.bias != NONE) { sum = sum + vectors[args.bias + whole]; }
            if (args.add != 0u) { sum = sum + out[at]; }
            out[at] = sum;
        }
    }
}
