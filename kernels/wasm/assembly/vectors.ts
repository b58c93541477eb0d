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

/** v where the gate is positive, else 0: gradients behind a ReLU; or behind what `rectify` has set, if it is bounded. */
// @ts-ignore: decorator
@inline
export function gated(v: v128, gate: v128, isBounded: bool = false): v128 {
  const isPositive = f32x4.gt(gate, zeros());
  return isBounded ? passed(v, gate, isPositive) : v128.and(v, isPositive);
}

/** A vector of dy, behind the gate if there is one. */
// @ts-ignore: decorator
@inline
export function loadGated(dy: usize, gate: usize, hasGate: bool, isBounded: bool): v128 {
  return hasGate ? gated(v128.load(dy), v128.load(gate), isBounded) : v128.load(dy);
}

/** max(v, 0): NaN stays NaN, and -0 becomes 0. Or by what `rectify` has set. */
// @ts-ignore: decorator
@inline
export function rectified(v: v128, isBounded: bool): v128 {
  const isNot = f32x4.le(v, zeros());
  return isBounded ? bounded(v, isNot) : v128.andnot(v, isNot);
}

// Bounds of the activation, in the first line of memory, where no array lies and all threads look: whether there are any; the slope
// in four lanes; the most, NaN for none; all bits where there is a slope.
const BOUNDED: usize = 8;
const SLOPE: usize = 16;
const MOST_VALUE: usize = 32;
const LEAKS: usize = 48;

/** Sets the bounds of all kernels that are called from now on; 0 and infinity are plain ReLU's. */
export function rectify(negativeSlope: f32, maxValue: f32): void {
  store<u32>(BOUNDED, <u32> (negativeSlope != 0 || maxValue != Infinity));
  v128.store(SLOPE, f32x4.splat(negativeSlope));
  v128.store(MOST_VALUE, f32x4.splat(maxValue == Infinity ? NaN : maxValue));
  v128.store(LEAKS, i32x4.splat(negativeSlope == 0 ? 0 : -1));
}

// @ts-ignore: decorator
@inline
export function hasBounds(): bool {
  return load<u32>(BOUNDED) != 0;
}

// @ts-ignore: decorator
@inline
function bounded(v: v128, isNot: v128): v128 {
  const below = v128.and(f32x4.mul(v, v128.load(SLOPE)), v128.load(LEAKS));
  return f32x4.pmin(v128.bitselect(below, v, isNot), v128.load(MOST_VALUE));
}

// @ts-ignore: decorator
@inline
function passed(v: v128, gate: v128, isPositive: v128): v128 {
  const scaled = f32x4.mul(v, v128.bitselect(f32x4.splat(1), v128.load(SLOPE), isPositive));
  const open = v128.or(isPositive, v128.load(LEAKS));
  return v128.andnot(v128.and(scaled, open), f32x4.ge(gate, v128.load(MOST_VALUE)));
}

/** `gated` for whoever has but one loop: it is asked for bounds each time. */
// @ts-ignore: decorator
@inline
export function through(v: v128, gate: v128): v128 {
  return hasBounds() ? throughBounds(v, gate) : gated(v, gate);
}

function throughBounds(v: v128, gate: v128): v128 {
  return gated(v, gate, true);
}

/** What passes the gate of one number. */
export function passedOne(value: f64, gate: f64): f64 {
  if (gate > 0) return gate >= <f64> load<f32>(MOST_VALUE) ? 0 : value;
  return load<u32>(LEAKS) ? value * <f64> load<f32>(SLOPE) : 0;
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
