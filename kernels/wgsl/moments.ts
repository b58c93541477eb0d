/**
 * Moments of a batch, slice by slice.
 *
 * Each invocation takes a few values into registers and makes their moments by two passes over those; everything after
 * that is merging. Sums of squares of the values themselves never occur: at mean 1e4 they would have no digit left.
 */

import type { DType } from "../../lib/tensor.ts";
import { slicesOf, treeReduce, writeSlice } from "./fold.ts";
import { type Kernel, tensor, written } from "./kernel.ts";
import { moments, UNCOUNTABLE } from "./moments_algebra.ts";
import { aheadOf, loop, type Named, storedAs, type Tile, tiledKernel, valuesOf } from "./tiles.ts";
import { type Weighing, weightsReader, weightsStorage } from "./weights.ts";

/** Moments of every slice of the box: x, weights? -> moments. */
export function momentsKernel(options: Tile & Weighing & { readonly dtype: DType }): Kernel {
  const { dtype, pack, weights } = options;
  const merged = weights === "none" ? mergedAlike : mergedByWeight;
  return tiledKernel({
    name: "moments",
    options,
    storage: {
      x: tensor(storedAs(dtype, pack)),
      weights: weightsStorage(options, options),
      moments: written(slicesOf(moments)),
    },
    declared: `${treeReduce(options, moments)}${weightsReader(options, options)}`,
    body: `var mine = Moments();
  ${
      loop(
        aheadOf(options.pack),
        (at) => ({
          x: valuesOf("x", at),
          ...(weights !== "none" && { weight: `weightsAt(${at})` }),
        }),
        (_, names) => merged([names], pack),
        (loads) => merged(loads, pack),
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
function mergedAlike(loads: readonly Named[], pack: Tile["pack"]): string {
  const values = loads.map(({ x }) => x);
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

/**
 * WGSL: the same by weights. What has none is taken for the one that the mean is measured from, whatever it is; a weight that
 * is negative, infinite or NaN, as its bits tell, is replaced by one that nobody can count by.
 */
function mergedByWeight(loads: readonly Named[], pack: Tile["pack"]): string {
  const bits = pack === "none" ? "u32" : "vec4u";
  const all = loads.map(({ x, weight }, i) => ({ x, weight, w: `w${i}`, d: `d${i}` }));
  const sum = (terms: readonly string[]) => terms.join(" + ");
  const counted = all.map(({ weight, w }) =>
    `let bits_${w} = bitcast<${bits}>(${weight});
      let ${w} = select(${weight}, Values(${UNCOUNTABLE}), (bits_${w} >= ${bits}(0x7f800000u)) & (bits_${w} != ${bits}(0x80000000u)));`
  );
  const [one] = all;
  const origin = pack === "places"
    ? `let origin = select(select(select(origins.w, origins.z, sums.z > 0.0), origins.y, sums.y > 0.0), origins.x, sums.x > 0.0);`
    : "let origin = origins;";
  const ones = sum(all.map(({ w }) => `select(Values(0.0), Values(1.0), ${w} > Values(0.0))`));
  const scalar = pack === "channels" ? ".x" : "";
  return `{
      ${counted.join("\n      ")}
      let sums = ${sum(all.map(({ w }) => w))};
      let total = across(sums);
      if (total${scalar} > 0.0) {
        var origins = ${one.x};
        ${all.map(({ x, w }) => `origins = select(origins, ${x}, ${w} > Values(0.0));`).join(" ")}
        ${origin}
        ${
    all.map(({ x, w, d }) => `let ${d} = select(Values(0.0), ${x} - origin, ${w} > Values(0.0));`)
      .join(" ")
  }
        let rough = across(${sum(all.map(({ w, d }) => `${w} * ${d}`))}) / total;
        let sum = across(${sum(all.map(({ w, d }) => `${w} * (${d} - rough)`))});
        let squares = across(${
    sum(all.map(({ w, d }) => `${w} * (${d} - rough) * (${d} - rough)`))
  });
        let correction = sum / total;
        let m2 = max(squares - sum * correction, Statistic(0.0));
        let isOne = across(${ones})${scalar} == 1.0;
        mine = mergeMoments(mine, about(origin, rough + correction, m2, select(total${scalar}, -total${scalar}, isOne)));
      }
    }`;
}
