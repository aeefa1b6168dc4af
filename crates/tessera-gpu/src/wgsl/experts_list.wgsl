// The experts that each row goes through, in ascending order, with their weights: one thread a row.
struct Args { count: u32, base: u32, first: u32, stride: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> list: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let row = gid.x;
    if (row >= step[args.count]) { return; }
    let at = (row + step[args.base]) * args.stride + args.first;
    var n = 0u;
    for (var e = 0u; e < EXPERTS; e++) {
        if (x[at + e] != 0.0 && n < TOP_K) {
            list[(row * TOP_K + n) * 2u] = e;
            list[(row * TOP_K + n) * 2u + 1u] = bitcast<u32>(x[at + e]);
            n++;
        }
    }
    for (; n < TOP_K; n++) { list[(row * TOP_K + n) * 2u] = NONE; }
}
