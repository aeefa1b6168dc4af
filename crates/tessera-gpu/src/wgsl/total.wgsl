// The sum of what 64 threads put into `lanes`, for all of them; a tree, so its order is fixed.
var<workgroup> lanes: array<f32, 64>;

fn total(lane: u32) -> f32 {
    workgroupBarrier();
    for (var n = 32u; n > 0u; n = n / 2u) {
        if (lane < n) { lanes[lane] = lanes[lane] + lanes[lane + n]; }
        workgroupBarrier();
    }
    let all = workgroupUniformLoad(&lanes[0]);
    workgroupBarrier();
    return all;
}
