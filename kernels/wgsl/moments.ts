/**
 * Moments of a batch, slice by slice.
 *
 * Each invocation takes a few values into registers and makes their moments by two passes over those; everything after
 * that is merging. Sums of squares of the values themselves never occur: at mean 1e4 they would have no digit left.
 */

import type { DType } from "../../lib/tensor.ts";
import { slicesOf, treeReduce, writeSlice } from "./fold.ts";
import { type Kernel, tensor, written } from "./kernel.ts";
import { moments } from "./moments_algebra.ts";
import { aheadOf, loop, storedAs, type Tile, tiledKernel, valuesOf } from "./tiles.ts";

/** Moments of every slice of the box: x -> moments. */
export function momentsKernel(options: Tile & { readonly dtype: DType }): Kernel {
  const { dtype, pack } = options;
  return tiledKernel({
    name: "moments",
    options,
    storage: { x: tensor(storedAs(dtype, pack)), moments: written(slicesOf(moments)) },
    declared: treeReduce(options, moments),
    body: `var mine = Moments();
  ${
      loop(
        aheadOf(options.pack),
        (at) => ({ x: valuesOf("x", at) }),
        (_, { x }) => merged([x], pack),
        (loads) => merged(loads.map(({ x }) => x), pack),
      )
    }
  let whole = reduceMoments(thread, p.span, mine);
  if (place.row == 0u && exists(place)) {
    let c = place.channel;
    ${writeSlice(options, moments, "moments", "p.firstSlice + place.slice")}
  }`,
  });
}

/**
 * WGSL: merges the moments of some values into `mine`. The first pass finds a mean, measured from one of the values, so that
 * equal values have exactly that mean. The second corrects it: what it started from may have been an outlier.
 */
function merged(values: readonly string[], pack: Tile["pack"]): string {
  const count = values.length * (pack === "places" ? 4 : 1);
  const [first] = values;
  if (count === 1) {
    return `mine = mergeMoments(mine, Moments(${first}, Statistic(0.0), Statistic(0.0), 1.0));`;
  }
  const sum = (terms: readonly string[]) => `across(${terms.join(" + ")})`;
  const deviations = values.map((_, i) => `deviation${i}`);
  return `{
      let origin = ${pack === "places" ? `${first}.x` : first};
      let rough = origin + ${sum(values.map((value) => `(${value} - origin)`))} / ${count}.0;
      ${values.map((value, i) => `let ${deviations[i]} = ${value} - rough;`).join(" ")}
      let sum = ${sum(deviations)};
      let squares = ${sum(deviations.map((name) => `${name} * ${name}`))};
      let correction = sum / ${count}.0;
      let m2 = max(squares - sum * correction, Statistic(0.0));
      mine = mergeMoments(mine, about(rough, correction, m2, ${count}.0));
    }`;
}
