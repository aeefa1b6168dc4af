// RWKV 6: one thread, one column of the state of one head of one span, row after row.
struct Args {
    r_from: u32, r_stride: u32, k_from: u32, k_stride: u32, v_from: u32, v_stride: u32, d_from: u32, d_stride: u32,
    out_from: u32, out_stride: u32, bonus: u32, state: u32, len: u32, width: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> r: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<f32>;
@group(0) @binding(6) var<storage, read> k: array<f32>;
@group(0) @binding(7) var<storage, read> v: array<f32>;
@group(0) @binding(8) var<storage, read> decay: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= args.width || gid.y >= step[7]) { return; }
    let head = gid.x / DIM;
    let column = gid.x % DIM;
    let span = step[8] + gid.y * 8u;
    let to = step[span + 3u] * args.len + args.state + head * DIM * DIM + column;
    let saved = step[span + 5u] * args.len + args.state + head * DIM * DIM + column;
    for (var t = 0u; t < step[span + 1u]; t++) {
        let row = step[span] + t;
        let x = v[row * args.v_stride + args.v_from + gid.x];
        var o = 0.0;
        for (var j = 0u; j < DIM; j++) {
            let i = head * DIM + j;
            let s = states[to + j * DIM];
            let new_value = k[row * args.k_stride + args.k_from + i] * x;
            o = fma(r[row * args.r_stride + args.r_from + i], fma(vectors[args.bonus + i], new_value, s), o);
            let keep = exp(-exp(decay[row * args.d_stride + args.d_from + i]));
            states[to + j * DIM] = fma(keep, s, new_value);
        }
        out[row * args.out_stride + args.out_from + gid.x] = o;
        if (t + 1u == step[span + 4u]) {
            for (var j = 0u; j < DIM; j++) { states[saved + j * DIM] = states[to + j * DIM]; }
        }
    }
}
