// Keys `[head][dim / 2][position]`, then values `[head][position][dim / 2]`, two halves in a word.
fn store_key(page: u32, head: u32, at: u32, pair: u32, x: vec2<f32>) {
    kv[page + (head * (DIM / 2u) + pair) * 64u + at] = pack2x16float(x);
}
fn store_value(page: u32, heads: u32, head: u32, at: u32, pair: u32, x: vec2<f32>) {
    kv[page + ((heads + head) * 64u + at) * (DIM / 2u) + pair] = pack2x16float(x);
}
fn load_key(page: u32, head: u32, at: u32, pair: u32) -> vec2<f32> {
    return unpack2x16float(kv[page + (head * (DIM / 2u) + pair) * 64u + at]);
}
fn load_value(page: u32, heads: u32, head: u32, at: u32, d: u32) -> f32 {
    return unpack2x16float(kv[page + ((heads + head) * 64u + at) * (DIM / 2u) + d / 2u])[d % 2u];
}
