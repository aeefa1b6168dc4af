// The parts of one query head of one row, in ascending order.
struct Args { count: u32, base: u32, out_from: u32, out_stride: u32, all: u32, seen: u32, picked: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = wid.x;
    var row = wid.y;
    if (args.picked != 0u) { row = step[step[4] + row]; }
    let end = step[step[args.seen] + row * 4u + 1u];
    let begin = (wid.y * args.all + head) * step[PARTS] * (DIM + 2u);
    let o0 = (wid.y + step[args.base]) * args.out_stride + args.out_from + head * DIM;
    for (var d = lane; d < DIM; d += 64u) {
        var all_m = -3e38;
        var all_l = 0.0;
        var all_o = 0.0;
        for (var part = 0u; part * PART < end; part++) {
            let at = begin + part * (DIM + 2u);
            let m = parts[at + DIM];
            let now = max(all_m, m);
            let before = share(all_m, now);
            let here = share(m, now);
            all_l = fma(parts[at + DIM + 1u], here, all_l * before);
            all_o = fma(parts[at + d], here, all_o * before);
            all_m = now;
        }
        out[o0 + d] = all_o / all_l;
    }
}
