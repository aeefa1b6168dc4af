// Keys `[head][dim / 2][position][2]`, then values `[head][position][dim]`.
fn store_key(page: u32, head: u32, at: u32, pair: u32, x: vec2<f32>) {
    let i = page + ((head * (DIM / 2u) + pair) * 64u + at) * 2u;
    kv[i] = bitcast<u32>(x.x);
    kv[i + 1u] = bitcast<u32>(x.y);
}
fn store_value(page: u32, heads: u32, head: u32, at: u32, pair: u32, x: vec2<f32>) {
    let i = page + ((heads + head) * 64u + at) * DIM + 2u * pair;
    kv[i] = bitcast<u32>(x.x);
    kv[i + 1u] = bitcast<u32>(x.y);
}
fn load_key(page: u32, head: u32, at: u32, pair: u32) -> vec2<f32> {
    let i = page + ((head * (DIM / 2u) + pair) * 64u + at) * 2u;
    return vec2<f32>(bitcast<f32>(kv[i]), bitcast<f32>(kv[i + 1u]));
}
fn load_value(page: u32, heads: u32, head: u32, at: u32, d: u32) -> f32 {
    return bitcast<f32>(kv[page + ((heads + head) * 64u + at) * DIM + d]);
}
