/** A direction through a normalization with the same bits everywhere: coefficients in float64, one sequence of float32 operations. */

import type { ChannelAffine, ChannelStatistics, Gate, Values, View } from "../reference/kernels.ts";
import { type DirectionViews, eachPlace, passedAt, placeOf } from "../reference/second.ts";
import { invstd, lowPart, shareOf, sumsOf } from "./kernels.ts";

const fround = Math.fround;

/**
 * t * scale + (xhat * slope + offset), with xhat = (x - hi) * s, then + dresidual, where output > 0, else 0; each rounded to float32, and
 * written in x's memory order. Signature and formula are those of `reference/second.ts`; gradients of moments, to
 * which alone weights matter, are left out.
 */
export function tangents(
  x: View,
  { count, mean, variance }: ChannelStatistics,
  { weight, eps }: Pick<ChannelAffine, "weight" | "eps">,
  { input, weight: dweight, bias, residual }: DirectionViews,
  total: Float64Array | null,
  _moments: unknown,
  output: Gate | null,
  _weights: View | null,
  result: Values,
): void {
  const share = shareOf(count);
  for (let c = 0; c < x.channels; c++) {
    const [hi, s] = [fround(mean[c]), invstd(variance[c], eps)];
    const wide = (weight ? weight[c] : 1) * s;
    const [sumT, sumTXmu] = total ? sumsOf(total, c, mean[c]) : [0, 0];
    const perXhat = (dweight ? dweight[c] : 0) - wide * s * (sumTXmu * share);
    // What is added is the share of gradients of moments elsewhere; it leaves no -0.
    const level = (bias ? bias[c] : 0) - wide * (sumT * share) + 0;
    const offset = fround(level - perXhat * (s * lowPart(mean[c])));
    const [scale, slope, narrow] = [fround(wide), fround(perXhat), fround(s)];
    eachPlace(c, x, (at, n, i) => {
      const xhat = fround(fround(x.values[at] - hi) * narrow);
      const t = input ? input.values[placeOf(input, n, c, i)] : 0;
      const moved = fround(fround(t * scale) + fround(fround(xhat * slope) + offset));
      const added = residual ? fround(moved + residual.values[placeOf(residual, n, c, i)]) : moved;
      result[at] = passedAt(added, output, n, c, i);
    });
  }
}
