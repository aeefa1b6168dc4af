// A dimension turned by the position of its row: the step holds cos and signed sin of each dimension that turns.
fn partner(d: u32) -> u32 {
    if (NEIGHBOURS) { return d ^ 1u; }
    return select(d - TURNED / 2u, d + TURNED / 2u, d < TURNED / 2u);
}
fn turned(x: f32, other: f32, row: u32, d: u32, table: u32) -> f32 {
    if (d >= TURNED) { return x; }
    let at = step[table] + (row * TURNED + d) * 2u;
    return x * bitcast<f32>(step[at]) + other * bitcast<f32>(step[at + 1u]);
}
