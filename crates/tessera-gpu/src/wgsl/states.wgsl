// Every sequence's state where it will be, zero at its beginning.
struct Args { len: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(3) var<storage, read_write> states: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) many: vec3<u32>) {
    // All states of a sequence are more than a dispatch is wide.
    let i = gid.x + gid.z * many.x * 64u;
    if (i >= args.len || gid.y >= step[7]) { return; }
    let span = step[8] + gid.y * 8u;
    let source = step[span + 2u];
    let to = step[span + 3u] * args.len + i;
    if (source == NONE) { states[to] = 0.0; }
    else if (source != step[span + 3u]) { states[to] = states[source * args.len + i]; }
}
