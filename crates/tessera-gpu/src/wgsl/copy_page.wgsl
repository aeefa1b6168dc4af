// One page to another of the same buffer.
struct Args { first: u32, to: u32, len: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(3) var<storage, read_write> kv: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x < args.len) { kv[args.to + gid.x] = kv[args.first + gid.x]; }
}
