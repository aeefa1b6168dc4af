// Which experts a row goes through: one thread, one row. As tessera-compute/src/route.rs.
struct Args {
    count: u32, base: u32, x_from: u32, x_stride: u32, out_from: u32, out_stride: u32, correction: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> vectors: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let row = gid.x;
    if (row >= step[args.count]) { return; }
    let x0 = (row + step[args.base]) * args.x_stride + args.x_from;
    let o0 = (row + step[args.base]) * args.out_stride + args.out_from;
    var scores: array<f32, EXPERTS>;
    var choice: array<f32, EXPERTS>;
    if (SOFTMAX) {
        var largest = -3e38;
        for (var i = 0u; i < EXPERTS; i++) { largest = max(largest, x[x0 + i]); }
        var sum = 0.0;
        for (var i = 0u; i < EXPERTS; i++) {
            scores[i] = exp(x[x0 + i] - largest);
            sum += scores[i];
        }
        for (var i = 0u; i < EXPERTS; i++) { scores[i] = scores[i] / sum; }
    } else {
        for (var i = 0u; i < EXPERTS; i++) { scores[i] = sigmoid(x[x0 + i]); }
    }
    for (var i = 0u; i < EXPERTS; i++) {
        choice[i] = scores[i];
        if (args.correction != NONE) { choice[i] += vectors[args.correction + i]; }
    }
    if (GROUPS > 0u) {
        var values: array<f32, GROUPS_LEN>;
        for (var g = 0u; g < GROUPS; g++) {
            var best = -3e38;
            var second = -3e38;
            for (var i = g * GROUP_SIZE; i < (g + 1u) * GROUP_SIZE; i++) {
                if (choice[i] > best) { second = best; best = choice[i]; }
                else if (choice[i] > second) { second = choice[i]; }
            }
            values[g] = best;
            if (TWO_BEST && GROUP_SIZE > 1u) { values[g] = best + second; }
        }
        var kept: array<bool, GROUPS_LEN>;
        for (var n = 0u; n < KEPT; n++) {
            var best = GROUPS;
            for (var g = 0u; g < GROUPS; g++) {
                if (!kept[g] && (best == GROUPS || values[g] > values[best])) { best = g; }
            }
            if (best < GROUPS) { kept[best] = true; }
        }
        for (var i = 0u; i < EXPERTS; i++) {
            if (!kept[i / GROUP_SIZE]) { choice[i] = -3e38; }
        }
    }
    for (var i = 0u; i < EXPERTS; i++) { out[o0 + i] = 0.0; }
    var sum = 0.0;
    var chosen: array<u32, TOP_K>;
    var taken: array<bool, EXPERTS>;
    for (var n = 0u; n < TOP_K; n++) {
        var best = EXPERTS;
        for (var i = 0u; i < EXPERTS; i++) {
            if (!taken[i] && (best == EXPERTS || choice[i] > choice[best])) { best = i; }
        }
        if (best == EXPERTS) { best = 0u; }
        taken[best] = true;
        chosen[n] = best;
        sum += scores[best];
    }
    for (var n = 0u; n < TOP_K; n++) {
        var share = scores[chosen[n]];
        if (RENORMALISE) { share = share / (sum + 1e-20); }
        out[o0 + chosen[n]] = share * args.scale;
    }
}
