// Keys, rotated by their positions, and values to their pages. One thread: two dimensions of one head of one row.
struct Args {
    k_from: u32, k_stride: u32, v_from: u32, v_stride: u32, heads: u32, kind: u32, turns: u32, page: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read_write> kv: array<u32>;
@group(0) @binding(5) var<storage, read> v: array<f32>;

fn key(row: u32, at: u32, d: u32) -> f32 { return turned(k[at + d], partner_of(at, d), row, d, args.turns); }
fn partner_of(at: u32, d: u32) -> f32 { return k[at + partner(d)]; }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let half = DIM / 2u;
    let row = gid.y;
    if (gid.x >= args.heads * half || row >= step[0]) { return; }
    let head = gid.x / half;
    let pair = gid.x % half;
    let d = 2u * pair;
    let position = step[step[3] + row];
    let page = step[step[step[5] + 2u * row + args.kind] + position / 64u];
    let at = row * args.k_stride + args.k_from + head * DIM;
    let begin = row * args.v_stride + args.v_from + head * DIM + d;
    store_key(page * args.page, head, position % 64u, pair, vec2<f32>(key(row, at, d), key(row, at, d + 1u)));
    store_value(page * args.page, args.heads, head, position % 64u, pair, vec2<f32>(v[begin], v[begin + 1u]));
}
