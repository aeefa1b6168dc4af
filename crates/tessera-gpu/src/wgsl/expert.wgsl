// One matrix of the expert of each item (a row and one of its experts): 4 outputs a workgroup, 16 lanes each, added as in
// linear.wgsl.
struct Args {
    x_from: u32, x_stride: u32, x_items: u32, base: u32, weigh: u32, cols: u32, each: u32, rows: u32, row0: u32,
    words: u32, groups: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> list: array<u32>;
@group(0) @binding(6) var<storage, read> codes: array<u32>;
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let item = wid.y;
    let lane = lid % 16u;
    let n = wid.x * 4u + lid / 16u;
    let expert = list[item * 2u];
    // The window holds some rows of all experts.
    let whole = expert * args.each + n;
    let here = expert != NONE && n < args.each && whole >= args.row0 && whole - args.row0 < args.rows;
    var sum = 0.0;
    if (here) {
        let m = whole - args.row0;
        var row = item / TOP_K + step[args.base];
        if (args.x_items != 0u) { row = item; }
        var factor = 1.0;
        if (args.weigh != 0u) { factor = bitcast<f32>(list[item * 2u + 1u]); }
        let at = row * args.x_stride + args.x_from;
        for (var g = lane; g < args.groups; g += 16u) {
            var t = 0.0;
            for (var k = g * GROUP; k < min((g + 1u) * GROUP, args.cols); k += 8u) {
                let w = eight(m, k, args.cols, args.rows, args.words);
                for (var i = 0u; i < 8u; i++) {
                    if (k + i < args.cols) { t = fma(w[i], x[at + k + i] * factor, t); }
                }
            }
            sum = fma(scale(m, g, args.rows, args.groups), t, sum);
        }
    }
    parts[lid] = sum;
    workgroupBarrier();
    if (here && lane == 0u) {
        var all = parts[lid];
        for (var j = 1u; j < 16u; j++) { all = all + parts[lid + j]; }
        out[item * args.each + n] = all;
    }
}
