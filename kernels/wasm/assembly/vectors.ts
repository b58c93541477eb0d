// Four float32 lanes, and the ends of runs that do not fill them.

/** a * b + c: rounded once in the relaxed build (where the machine can), twice in the reproducible one. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

// @ts-ignore: decorator
@inline
export function zeros(): v128 {
  return f32x4.splat(0);
}

/** The four lanes added in float64, always in the same order. */
// @ts-ignore: decorator
@inline
export function total(v: v128): f64 {
  return (
    <f64> f32x4.extract_lane(v, 0) + <f64> f32x4.extract_lane(v, 1) +
    (<f64> f32x4.extract_lane(v, 2) + <f64> f32x4.extract_lane(v, 3))
  );
}

/** The 1 to 3 elements that follow the last whole vector of a run; lanes beyond them are 0, memory beyond is not read. */
// @ts-ignore: decorator
@inline
export function loadRest(at: usize, rest: u32): v128 {
  if (rest == 1) return v128.load32_zero(at);
  const pair = v128.load64_zero(at);
  return rest == 2 ? pair : v128.load32_lane(at, pair, 2, 8);
}

/** Writes the 1 to 3 elements that follow the last whole vector of a run, and nothing beyond. */
// @ts-ignore: decorator
@inline
export function storeRest(at: usize, v: v128, rest: u32): void {
  if (rest == 1) return v128.store32_lane(at, v, 0);
  v128.store64_lane(at, v, 0);
  if (rest == 3) v128.store32_lane(at, v, 2, 8);
}

/** Keeps the first lanes; the others become 0. */
// @ts-ignore: decorator
@inline
export function keep(v: v128, lanes: u32): v128 {
  return v128.and(v, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(lanes)));
}

/** v where the gate is positive, else 0: gradients behind a ReLU. */
// @ts-ignore: decorator
@inline
export function gated(v: v128, gate: v128): v128 {
  return v128.and(v, f32x4.gt(gate, zeros()));
}

/** A vector of dy, behind the gate if there is one. */
// @ts-ignore: decorator
@inline
export function loadGated(dy: usize, gate: usize, hasGate: bool): v128 {
  return hasGate ? gated(v128.load(dy), v128.load(gate)) : v128.load(dy);
}

/** max(v, 0): NaN stays NaN, and -0 becomes 0. */
// @ts-ignore: decorator
@inline
export function rectified(v: v128): v128 {
  return v128.andnot(v, f32x4.le(v, zeros()));
}

/** Adds four vectors, or the first three, to those that lie side by side in memory. */
// @ts-ignore: decorator
@inline
export function increase(at: usize, a: v128, b: v128, c: v128, d: v128, four: bool): void {
  v128.store(at, f32x4.add(v128.load(at), a));
  v128.store(at, f32x4.add(v128.load(at, 16), b), 16);
  v128.store(at, f32x4.add(v128.load(at, 32), c), 32);
  if (four) v128.store(at, f32x4.add(v128.load(at, 48), d), 48);
}

/** Bytes of so many float32. */
// @ts-ignore: decorator
@inline
export function bytes(elements: u32): usize {
  return <usize> elements << 2;
}
