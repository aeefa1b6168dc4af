// One workgroup: one query head of one row. Positions page by page, each page's maximum and sum merged into those of the
// pages before it, and PART positions after PART, merged likewise: the order depends on nothing but the positions that the
// row sees. SPLIT: each part is made by a workgroup of its own, and `merge.wgsl` merges them.
struct Args {
    count: u32, base: u32, q_from: u32, q_stride: u32, out_from: u32, out_stride: u32, heads: u32, group: u32,
    kind: u32, turns: u32, moved: u32, page: u32, seen: u32, picked: u32, scale: f32, cap: f32,
    all: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> kv: array<u32>;

var<workgroup> query: array<f32, DIM>;
var<workgroup> moved: array<f32, MOVED_DIM>;
var<workgroup> weights: array<f32, 64>;

fn most(lane: u32) -> f32 {
    workgroupBarrier();
    for (var n = 32u; n > 0u; n = n / 2u) {
        if (lane < n) { lanes[lane] = max(lanes[lane], lanes[lane + n]); }
        workgroupBarrier();
    }
    let all = workgroupUniformLoad(&lanes[0]);
    workgroupBarrier();
    return all;
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = wid.x;
    let kv_head = head / args.group;
    var row = wid.y;
    if (args.picked != 0u) { row = step[step[4] + row]; }
    let at = row * args.q_stride + args.q_from + head * DIM;
    for (var d = lane; d < DIM; d += 64u) {
        var other = 0.0;
        if (d < TURNED) { other = q[at + partner(d)]; }
        query[d] = turned(q[at + d], other, row, d, args.turns);
        if (SINKS) { moved[d] = turned(q[at + d], other, row, d, args.moved); }
    }
    workgroupBarrier();
    let seen = step[args.seen] + row * 4u;
    let begin = step[seen];
    let end = step[seen + 1u];
    let sinks = step[seen + 2u];
    let pages = step[step[5] + 2u * row + args.kind];
    var all_m = -3e38;
    var all_l = 0.0;
    var all_o: array<f32, VALUES>;
    for (var i = 0u; i < VALUES; i++) { all_o[i] = 0.0; }
    for (var part = select(0u, wid.z, SPLIT); part < select((end + PART - 1u) / PART, wid.z + 1u, SPLIT); part++) {
        var m = -3e38;
        var l = 0.0;
        var o: array<f32, VALUES>;
        for (var i = 0u; i < VALUES; i++) { o[i] = 0.0; }
        for (var p = part * (PART / 64u); p * 64u < min(end, (part + 1u) * PART); p++) {
            if ((p + 1u) * 64u <= begin && p * 64u >= sinks) { continue; }
            let page = step[pages + p] * args.page;
            let position = p * 64u + lane;
            let is_sink = position < sinks;
            let is_seen = is_sink || (position >= begin && position < end);
            var score = -3e38;
            if (is_seen) {
                var sum = 0.0;
                for (var pair = 0u; pair < DIM / 2u; pair++) {
                    let k = load_key(page, kv_head, lane, pair);
                    var a = query[2u * pair];
                    var b = query[2u * pair + 1u];
                    if (SINKS && is_sink) {
                        a = moved[2u * pair];
                        b = moved[2u * pair + 1u];
                    }
                    sum = fma(a, k.x, sum);
                    sum = fma(b, k.y, sum);
                }
                score = sum * args.scale;
                if (args.cap > 0.0) { score = cap(score, args.cap); }
            }
            lanes[lane] = score;
            let now = max(m, most(lane));
            var e = 0.0;
            if (is_seen) { e = exp(score - now); }
            weights[lane] = e;
            lanes[lane] = e;
            let before = share(m, now);
            l = l * before + total(lane);
            m = now;
            for (var i = 0u; i < VALUES; i++) {
                let d = lane + i * 64u;
                if (d < DIM) {
                    var sum = 0.0;
                    for (var j = 0u; j < 64u; j++) {
                        if (weights[j] != 0.0) { sum = fma(weights[j], load_value(page, args.heads, kv_head, j, d), sum); }
                    }
                    o[i] = o[i] * before + sum;
                }
            }
            workgroupBarrier();
        }
        if (SPLIT) {
            let to = ((wid.y * args.all + head) * step[PARTS] + wid.z) * (DIM + 2u);
            if (lane == 0u) {
                out[to + DIM] = m;
                out[to + DIM + 1u] = l;
            }
            for (var i = 0u; i < VALUES; i++) {
                let d = lane + i * 64u;
                if (d < DIM) { out[to + d] = o[i]; }
            }
        } else {
            let now = max(all_m, m);
            let before = share(all_m, now);
            let here = share(m, now);
            all_l = fma(l, here, all_l * before);
            for (var i = 0u; i < VALUES; i++) { all_o[i] = fma(o[i], here, all_o[i] * before); }
            all_m = now;
        }
    }
    if (!SPLIT) {
        let o0 = (wid.y + step[args.base]) * args.out_stride + args.out_from + head * DIM;
        for (var i = 0u; i < VALUES; i++) {
            let d = lane + i * 64u;
            if (d < DIM) { out[o0 + d] = all_o[i] / all_l; }
        }
    }
}
