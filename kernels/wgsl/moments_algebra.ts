/**
 * The algebra of moments in WGSL, and its tree over a workgroup.
 *
 * Moments are a vec4f: x + y is the mean, as the sum of a float32 and what it is short of; z is m2, w the count. An
 * array of moments has `slices` of them per channel, side by side.
 *
 * @module
 */

import type { Tile } from "./tiles.ts";

/** Parameters of every kernel that uses the algebra. */
export const ALGEBRA_PARAMETERS = {
  /** Always 0, which no compiler can know. */
  zero: "u32",
} as const;

/**
 * WGSL: `merge` of two moments by Chan, Golub, LeVeque 1983, eq. 2.1.
 *
 * The difference of equal means is exactly 0, so that a constant channel keeps its value and m2 = 0 whatever the order.
 */
export const MERGE = `
// The bits of x, which fast arithmetic cannot simplify away: a two-sum is 0 for whoever believes in real numbers.
fn exact(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}

// a + b, and what that is short of (Knuth, TAOCP 4.2.2, theorem B).
fn twoSum(a: f32, b: f32) -> vec2f {
  let sum = exact(a + b);
  let part = exact(sum - a);
  return vec2f(sum, (a - exact(sum - part)) + (b - part));
}

fn merge(a: vec4f, b: vec4f) -> vec4f {
  if (a.w == 0.0) { return b; }
  if (b.w == 0.0) { return a; }
  let count = a.w + b.w;
  let share = b.w / count;
  let delta = (b.x - a.x) + (b.y - a.y);
  let mean = twoSum(a.x, a.y + delta * share);
  return vec4f(mean, a.z + b.z + delta * delta * (a.w * share), count);
}
`;

/**
 * WGSL: merges the moments in `tree` over the rows of each lane, of which the first `rows` have any; `tree[lane]` has the
 * result. Needs `tiles`.
 */
export function climb({ workgroup }: Tile): string {
  return `
var<workgroup> tree: array<vec4f, ${workgroup}>;

fn climb(thread: u32, rows: u32) {
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (half >= rows) { continue; }
    if (thread < half * LANES) {
      tree[thread] = merge(tree[thread], tree[thread + half * LANES]);
    }
    workgroupBarrier();
  }
}
`;
}

/** WGSL: the moments of a channel from all slices of \`moments\`, for all invocations of its lane. */
export const GATHER = `
fn gather(place: Place, thread: u32) -> vec4f {
  let first = p.momentsAt + place.channel * p.momentsSlices;
  if (p.momentsSlices == 1u) { return moments[first]; }
  var mine = vec4f(0.0);
  if (place.channel < p.channels) {
    for (var k = place.row; k < p.momentsSlices; k += ROWS) {
      mine = merge(mine, moments[first + k]);
    }
  }
  tree[thread] = mine;
  climb(thread, p.momentsSlices);
  return tree[place.lane];
}
`;

/** WGSL: 1/sqrt(variance + eps), 0 for a constant channel without eps; the smallest normal float32 is the least variance. */
export const INVSTD = `
fn invstd(moments: vec4f) -> f32 {
  let variance = select(moments.z / moments.w, 0.0, moments.w == 0.0) + p.eps;
  return select(inverseSqrt(variance), 0.0, variance < 1.17549435e-38);
}
`;
