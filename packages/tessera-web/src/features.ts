// What the engine of this thread can do, where the module is chosen by it.

/**
 * `(x: f32, c: f32) => i32`: whether `f32x4.relaxed_madd(x, x, c)` has a lane that is not zero. Values are parameters, so
 * that nothing is computed at compile time.
 */
// prettier-ignore
const PROBE = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
  0x01, 0x07, 0x01, 0x60, 0x02, 0x7d, 0x7d, 0x01, 0x7f, // type (f32, f32) -> i32
  0x03, 0x02, 0x01, 0x00, // function 0 is of it
  0x07, 0x05, 0x01, 0x01, 0x66, 0x00, 0x00, // and exported as f
  0x0a, 0x15, 0x01, 0x13, 0x00,
  0x20, 0x00, 0xfd, 0x13, 0x20, 0x00, 0xfd, 0x13, 0x20, 0x01, 0xfd, 0x13, // local.get, f32x4.splat
  0xfd, 0x85, 0x02, 0xfd, 0x53, 0x0b, // f32x4.relaxed_madd, v128.any_true, end
]);

let known: boolean | undefined;

/**
 * Whether there is relaxed SIMD whose multiply-add rounds once, as the relaxed module's results need. WebAssembly leaves
 * that to the engine, which is to choose it once for all.
 */
export function relaxed(): boolean {
  known ??= probe();
  return known;
}

function probe(): boolean {
  try {
    const { f } = new WebAssembly.Instance(new WebAssembly.Module(PROBE)).exports;
    // The last bit of the square, 2^-46, is lost where the product is rounded by itself.
    const x = 1 + 2 ** -23;
    return (f as (x: number, c: number) => number)(x, -Math.fround(x * x)) === 1;
  } catch {
    return false;
  }
}

/** As many as there are likely to be cores: beyond that, threads that wait for each other are in each other's way. */
export function usual(): number {
  const logical = (typeof navigator === "undefined" ? undefined : navigator.hardwareConcurrency) ?? 1;
  return logical <= 2 ? logical : Math.min(Math.ceil(logical / 2), 8);
}
