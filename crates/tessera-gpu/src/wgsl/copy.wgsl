// One buffer to another, 16 KiB a workgroup.
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = wid.x * 1024u + lane; i < wid.x * 1024u + 1024u; i += 256u) { out[i] = x[i]; }
}
