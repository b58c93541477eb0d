/**
 * The algebra of moments in WGSL.
 *
 * In memory moments are a vec4f: x + y is the mean, as the sum of a float32 and its low part; z is m2, w the count. An array of
 * moments has `slices` of them per channel, side by side. A lane has `Moments`, of one channel or of four.
 *
 * The count of weighted moments is the sum of their weights: negated where it is that of one weight alone, which has no
 * variance, and `UNCOUNTABLE` or more where a weight is none, as WGSL may take it that there is no NaN.
 */

import type { Folded } from "./fold.ts";
import type { Tile } from "./tiles.ts";

/** Moments, and `mergeMoments` of two of them by Chan, Golub, LeVeque 1983, eq. 2.1; `about` makes some. */
export const moments: Folded = Object.freeze<Folded>({
  type: "Moments",
  fields: { mean: "Statistic", meanLow: "Statistic", m2: "Statistic", count: "f32" },
  header: 0,
  // The difference of equal means is exactly 0, so that a constant channel keeps its value and m2 = 0 whatever the order.
  merge: ({ pack }: Pick<Tile, "pack">) => {
    const bits = pack === "channels" ? "vec4u" : "u32";
    return `
// The bits of x, which fast arithmetic cannot simplify away: a two-sum is 0 for whoever believes in real numbers.
fn exact(x: Statistic) -> Statistic {
  return bitcast<Statistic>(bitcast<${bits}>(x) ^ ${bits}(p.zero));
}

// Moments whose mean is a + b (the low part is what a float32 of the sum lacks: Knuth, TAOCP 4.2.2, theorem B).
fn about(a: Statistic, b: Statistic, m2: Statistic, count: f32) -> Moments {
  let sum = exact(a + b);
  let part = exact(sum - a);
  return Moments(sum, (a - exact(sum - part)) + (b - part), m2, count);
}

fn mergeMoments(a: Moments, b: Moments) -> Moments {
  if (a.count == 0.0) { return b; }
  if (b.count == 0.0) { return a; }
  let count = abs(a.count) + abs(b.count);
  let share = abs(b.count) / count;
  let delta = (b.mean - a.mean) + (b.meanLow - a.meanLow);
  let m2 = a.m2 + b.m2 + delta * delta * (abs(a.count) * share);
  return about(a.mean, a.meanLow + delta * share, m2, count);
}
`;
  },
});

/** Sums of weights from here on count as infinite. */
export const UNCOUNTABLE = 1e38;

/**
 * WGSL: 1/sqrt(variance + eps), 0 for a constant channel without eps, and where nothing counts; the smallest normal float32 is
 * the least variance.
 */
export const INVSTD = `
fn invstd(m2: Statistic, count: f32) -> Statistic {
  if (count == 0.0) { return Statistic(0.0); }
  let variance = m2 / count + p.eps;
  return select(inverseSqrt(variance), Statistic(0.0), variance < Statistic(1.17549435e-38));
}
`;
