// `activation(gate) * up` of every item's two halves.
struct Args { width: u32, count: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= args.width || gid.y >= step[args.count] * TOP_K) { return; }
    let at = gid.y * 2u * args.width + gid.x;
    out[gid.y * args.width + gid.x] = f(x[at]) * x[at + args.width];
}
