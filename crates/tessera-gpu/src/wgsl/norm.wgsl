// One workgroup: one part of one row. `x` is `out` where both are one activation.
struct Args {
    count: u32, base: u32, x_from: u32, x_stride: u32, out_from: u32, out_stride: u32, each: u32,
    weight: u32, weight_step: u32, bias: u32, bias_step: u32, eps: f32, out_base: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wid.y;
    let x0 = (row + step[args.base]) * args.x_stride + args.x_from + wid.x * args.each;
    let o0 = (row + step[args.out_base]) * args.out_stride + args.out_from + wid.x * args.each;
    let n = f32(args.each);
    var mean = 0.0;
    if (LAYER) {
        var sum = 0.0;
        for (var i = lane; i < args.each; i += 64u) { sum += read_x(x0 + i); }
        lanes[lane] = sum;
        mean = total(lane) / n;
    }
    var squares = 0.0;
    for (var i = lane; i < args.each; i += 64u) {
        let d = read_x(x0 + i) - mean;
        squares = fma(d, d, squares);
    }
    lanes[lane] = squares;
    let scale = 1.0 / sqrt(total(lane) / n + args.eps);
    for (var i = lane; i < args.each; i += 64u) {
        var y = (read_x(x0 + i) - mean) * scale;
        if (args.weight != NONE) { y = y * vectors[args.weight + wid.x * args.weight_step + i]; }
        if (args.bias != NONE) { y = y + vectors[args.bias + wid.x * args.bias_step + i]; }
        out[o0 + i] = y;
    }
}
