// A causal convolution: one thread, one column of one span, row after row.
struct Args {
    x_from: u32, x_stride: u32, out_from: u32, out_stride: u32, width: u32, weight: u32, state: u32, len: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let c = gid.x;
    if (c >= args.width || gid.y >= step[7]) { return; }
    let span = step[8] + gid.y * 8u;
    let start = step[span];
    let to = step[span + 3u] * args.len + args.state + c;
    let save = step[span + 4u];
    let saved = step[span + 5u] * args.len + args.state + c;
    var seen: array<f32, KERNEL>;
    for (var j = 0u; j + 1u < KERNEL; j++) { seen[j] = states[to + j * args.width]; }
    for (var t = 0u; t < step[span + 1u]; t++) {
        seen[KERNEL - 1u] = x[(start + t) * args.x_stride + args.x_from + c];
        var sum = 0.0;
        for (var j = 0u; j < KERNEL; j++) { sum = sum + vectors[args.weight + c * KERNEL + j] * seen[j]; }
        out[(start + t) * args.out_stride + args.out_from + c] = f(sum);
        for (var j = 0u; j + 1u < KERNEL; j++) { seen[j] = seen[j + 1u]; }
        if (t + 1u == save) {
            for (var j = 0u; j + 1u < KERNEL; j++) { states[saved + j * args.width] = seen[j]; }
        }
    }
    for (var j = 0u; j + 1u < KERNEL; j++) { states[to + j * args.width] = seen[j]; }
}
