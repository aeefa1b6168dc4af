// What values that were made with the maximum `m` count where it is `now`.
fn share(m: f32, now: f32) -> f32 {
    if (m < -2.9e38) { return 0.0; }
    return exp(max(m - now, -100.0));
}
