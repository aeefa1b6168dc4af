// The experts' outputs, added in ascending order to what the row holds.
struct Args { count: u32, base: u32, width: u32, out_from: u32, out_stride: u32, weigh: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> list: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= args.width || gid.y >= step[args.count]) { return; }
    let at = (gid.y + step[args.base]) * args.out_stride + args.out_from + gid.x;
    var sum = out[at];
    for (var i = 0u; i < TOP_K; i++) {
        let item = gid.y * TOP_K + i;
        if (list[item * 2u] != NONE) {
            var factor = 1.0;
            if (args.weigh != 0u) { factor = bitcast<f32>(list[item * 2u + 1u]); }
            sum = sum + factor * x[item * args.width + gid.x];
        }
    }
    out[at] = sum;
}
