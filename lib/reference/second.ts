/** Second order as plain loops with float64 arithmetic: a direction through a normalization, gradients of gradients. */

import {
  type ChannelAffine,
  type ChannelStatistics,
  type Gate,
  invstd,
  passed,
  type Values,
  type View,
} from "./kernels.ts";

/** Directions as the formulas take them. */
export interface DirectionViews {
  readonly input: View | null;
  readonly weight: Values | null;
  readonly bias: Values | null;
  readonly residual: View | null;
}

type Scale = Pick<ChannelAffine, "weight" | "eps">;

/** Calls `visit` with where each value of a channel lies in memory, and its place in any other view of the same shape. */
export function eachPlace(
  c: number,
  x: View,
  visit: (at: number, n: number, i: number) => void,
): void {
  for (let n = 0; n < x.batch; n++) {
    for (let i = 0; i < x.inner; i++) visit(placeOf(x, n, c, i), n, i);
  }
}

/** Where an element of a view lies. */
export function placeOf(
  { sampleStride, channelStride, innerStride }: View,
  n: number,
  c: number,
  i: number,
) {
  return n * sampleStride + c * channelStride + i * innerStride;
}

/** The value at a place; 0 where there is no view. */
function valueOf(view: View | null, n: number, c: number, i: number): number {
  return view === null ? 0 : view.values[placeOf(view, n, c, i)];
}

/** A value behind the gate of an output. */
export function passedAt(
  value: number,
  output: Gate | null,
  n: number,
  c: number,
  i: number,
): number {
  return output === null ? value : passed(value, output, placeOf(output, n, c, i));
}

/** 1/count, and 0 of an empty batch. */
const shareOf = (count: number): number => count === 0 ? 0 : 1 / count;

/** What weights leave of a term: none where they are 0, whatever the term is. */
const counted = (counts: number, term: number): number => counts === 0 ? 0 : counts * term;

/**
 * weight*s * (t - sumT/N - (x - mean) * s^2 * sumTXmu/N) + dweight*xhat + dbias + dresidual + dmean/N + 2*(x - mean)*dvariance/N
 * where output > 0, else 0, written in x's memory order. With weights the terms of dmean and dvariance are w times as large.
 */
export function tangents(
  x: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Scale,
  directions: DirectionViews,
  total: Float64Array | null,
  moments: { readonly mean: Values | null; readonly variance: Values | null },
  output: Gate | null,
  weights: View | null,
  result: Values,
): void {
  const { channels: C } = x;
  const share = shareOf(count);
  for (let c = 0; c < C; c++) {
    const s = invstd(variance[c], eps);
    const scale = s * (weight ? weight[c] : 1);
    const level = total ? total[c] * share : 0;
    const slope = total ? s * s * total[C + c] * share : 0;
    const perXmu = s * (directions.weight?.[c] ?? 0);
    const offset = directions.bias?.[c] ?? 0;
    const ofMoments = {
      perXmu: 2 * (moments.variance?.[c] ?? 0) * share,
      offset: (moments.mean?.[c] ?? 0) * share,
    };
    eachPlace(c, x, (at, n, i) => {
      const deviation = x.values[at] - mean[c];
      const along = valueOf(directions.input, n, c, i) - level - deviation * slope;
      const counts = weights ? valueOf(weights, n, 0, i) : 1;
      const owed = counted(counts, deviation * ofMoments.perXmu + ofMoments.offset);
      const value = scale * along + deviation * perXmu + offset + owed;
      result[at] = passedAt(value + valueOf(directions.residual, n, c, i), output, n, c, i);
    });
  }
}

/** Sums over the group that gradients of gradients need: (S1, S2), (A, B), (., D) and (E, F). */
export interface SecondTotals {
  readonly gradient: Float64Array;
  readonly along: Float64Array;
  readonly products: Float64Array;
  readonly weighted: Float64Array;
}

/**
 * The gradient of the input of a backward pass, by the directions a of gradInput and q of gradWeight, with d = x - mean:
 * weight * (d*s^3/N * (A*S1/N - D + 3*s^2*S2*B/N) + B*s^3/N * (S1/N - dy) + S2*s^3/N * (A/N - a)) + s*(q*dy - E/N - d*s^2*F/N),
 * or s*q*dy in evaluation, which has no totals. With weights all terms but those of dy are w times as large.
 */
export function secondGradInput(
  x: View,
  dy: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Scale,
  { input: a, weight: q }: DirectionViews,
  totals: SecondTotals | null,
  output: Gate | null,
  weights: View | null,
  result: Values,
): void {
  const { channels: C } = x;
  const share = shareOf(count);
  for (let c = 0; c < C; c++) {
    const s = invstd(variance[c], eps);
    const w = weight ? weight[c] : 1;
    const [S1, S2] = pairOf(totals?.gradient, c, C);
    const [A, B] = pairOf(totals?.along, c, C);
    const [, D] = pairOf(totals?.products, c, C);
    const [E, F] = pairOf(totals?.weighted, c, C);
    const cubed = w * s ** 3 * share;
    const perXmu = cubed * (A * S1 * share - D + 3 * s * s * S2 * B * share) - s ** 3 * F * share;
    const offset = cubed * (B * S1 + S2 * A) * share - s * E * share;
    const perDy = s * (q?.[c] ?? 0) - cubed * B;
    eachPlace(c, x, (at, n, i) => {
      const gradient = passedAt(valueOf(dy, n, c, i), output, n, c, i);
      const counts = totals === null ? 0 : weights ? valueOf(weights, n, 0, i) : 1;
      const deviation = x.values[at] - mean[c];
      const behind = deviation * perXmu + offset - cubed * S2 * valueOf(a, n, c, i);
      result[at] = perDy * gradient + counted(counts, behind);
    });
  }
}

/** The gradient of the weight, from this rank's sums: s * (D - A*S1/N - B*s^2*S2/N), or s*D in evaluation. */
export function secondGradWeight(
  { count, variance }: Pick<ChannelStatistics, "count" | "variance">,
  eps: number,
  total: Float64Array | null,
  along: Float64Array | null,
  products: Float64Array,
): Float32Array<ArrayBuffer> {
  const C = products.length / 2;
  const share = shareOf(count);
  return Float32Array.from({ length: C }, (_, c) => {
    const s = invstd(variance[c], eps);
    const [S1, S2] = pairOf(total, c, C);
    const [A, B] = pairOf(along, c, C);
    return s * (products[C + c] - A * S1 * share - B * s * s * S2 * share);
  });
}

function pairOf(sums: Float64Array | null | undefined, c: number, C: number) {
  return sums ? [sums[c], sums[C + c]] as const : [0, 0] as const;
}
