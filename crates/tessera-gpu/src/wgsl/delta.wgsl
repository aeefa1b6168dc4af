// The gated delta rule: one thread, one column of the state of one value head of one span, row after row.
struct Args {
    q_from: u32, q_stride: u32, k_from: u32, k_stride: u32, v_from: u32, v_stride: u32, a_from: u32, a_stride: u32,
    b_from: u32, b_stride: u32, out_from: u32, out_stride: u32, a_log: u32, dt_bias: u32, state: u32, len: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<f32>;
@group(0) @binding(6) var<storage, read> k: array<f32>;
@group(0) @binding(7) var<storage, read> v: array<f32>;
@group(0) @binding(8) var<storage, read> gates: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= VALUES * VALUE || gid.y >= step[7]) { return; }
    let head = gid.x / VALUE;
    let column = gid.x % VALUE;
    let key_head = head / (VALUES / KEYS);
    let span = step[8] + gid.y * 8u;
    let to = step[span + 3u] * args.len + args.state + head * KEY * VALUE + column;
    let saved = step[span + 5u] * args.len + args.state + head * KEY * VALUE + column;
    for (var t = 0u; t < step[span + 1u]; t++) {
        let row = step[span] + t;
        let raised = gates[row * args.a_stride + args.a_from + head] + vectors[args.dt_bias + head];
        var softplus = raised;
        if (raised <= 20.0) { softplus = log_1p(exp(raised)); }
        let decay = exp(-exp(vectors[args.a_log + head]) * softplus);
        let beta = sigmoid(gates[row * args.b_stride + args.b_from + head]);
        let k0 = row * args.k_stride + args.k_from + key_head * KEY;
        let q0 = row * args.q_stride + args.q_from + key_head * KEY;
        var held = 0.0;
        for (var j = 0u; j < KEY; j++) {
            let s = states[to + j * VALUE] * decay;
            states[to + j * VALUE] = s;
            held = fma(k[k0 + j], s, held);
        }
        let change = (v[row * args.v_stride + args.v_from + gid.x] - held) * beta;
        var o = 0.0;
        for (var j = 0u; j < KEY; j++) {
            let s = fma(k[k0 + j], change, states[to + j * VALUE]);
            states[to + j * VALUE] = s;
            o = fma(q[q0 + j], s, o);
        }
        out[row * args.out_stride + args.out_from + gid.x] = o / sqrt(f32(KEY));
        if (t + 1u == step[span + 4u]) {
            for (var j = 0u; j < KEY; j++) { states[saved + j * VALUE] = states[to + j * VALUE]; }
        }
    }
}

// ln(1 + x) of small x too: Kahan's, who lets the rounding of `1 + x` cancel.
fn log_1p(x: f32) -> f32 {
    let u = 1.0 + x;
    if (u == 1.0) { return x; }
    return log(u) * (x / (u - 1.0));
}
