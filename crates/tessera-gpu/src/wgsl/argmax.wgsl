// The largest logit of a row, the lowest id among equals: NONE where one is NaN or +inf, or none is finite. One
// workgroup a row.
struct Args { count: u32, base: u32, width: u32, stride: u32, }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;

var<workgroup> best: array<f32, 256>;
var<workgroup> at: array<u32, 256>;
var<workgroup> fault: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x0 = wid.y * args.stride;
    var m = -3.4e38;
    var id = NONE;
    var wrong = 0u;
    for (var i = lane; i < args.width; i += 256u) {
        let y = x[x0 + i];
        let bits = bitcast<u32>(y);
        // -inf is a token that cannot come.
        if ((bits & 0x7f800000u) == 0x7f800000u) {
            if (bits != 0xff800000u) { wrong = 1u; }
        } else if (id == NONE || y > m) {
            m = y;
            id = i;
        }
    }
    best[lane] = m;
    at[lane] = id;
    fault[lane] = wrong;
    workgroupBarrier();
    for (var n = 128u; n > 0u; n = n / 2u) {
        if (lane < n) {
            let other = at[lane + n];
            let larger = best[lane + n] > best[lane] || (best[lane + n] == best[lane] && other < at[lane]);
            if (other != NONE && (at[lane] == NONE || larger)) {
                best[lane] = best[lane + n];
                at[lane] = other;
            }
            fault[lane] = fault[lane] | fault[lane + n];
        }
        workgroupBarrier();
    }
    if (lane == 0u) { ids[wid.y + step[args.base]] = select(at[0], NONE, fault[0] != 0u); }
}
