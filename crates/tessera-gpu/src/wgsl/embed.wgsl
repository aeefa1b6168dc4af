// Rows of a table: one thread, eight columns of one row of the batch.
struct Args {
    out_from: u32, out_stride: u32, cols: u32, rows: u32, row0: u32, words: u32, groups: u32, ids: u32, scale: f32,
    add: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read> codes: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let k = gid.x * 8u;
    let row = gid.y;
    if (k >= args.cols || row >= step[0]) { return; }
    var id = 0u;
    if (args.ids != NONE) { id = step[step[args.ids] + row]; }
    // Tables longer than a binding are several windows, each with its own dispatch.
    if (id < args.row0 || id - args.row0 >= args.rows) { return; }
    let n = id - args.row0;
    let w = eight(n, k, args.cols, args.rows, args.words);
    let s = scale(n, k / GROUP, args.rows, args.groups) * args.scale;
    let at = row * args.out_stride + args.out_from + k;
    for (var i = 0u; i < 8u; i++) {
        if (k + i < args.cols) {
            var x = w[i] * s;
            if (args.add != 0u) { x += out[at + i]; }
            out[at + i] = x;
        }
    }
}
