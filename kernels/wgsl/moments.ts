/**
 * Moments of a batch, slice by slice.
 *
 * Each invocation takes a few values into registers and makes their moments by two passes over those; everything after
 * that is merging. Sums of squares of the values themselves never occur: at mean 1e4 they would have no digit left.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { channelsResult, type Kernel, kernel, tensor } from "./kernel.ts";
import { algebra, ALGEBRA_PARAMETERS, climb, writeMoments } from "./moments_algebra.ts";
import {
  entry,
  members,
  PARTS_PARAMETERS,
  storedAs,
  stroll,
  type Tile,
  TILE_PARAMETERS,
  tiles,
} from "./tiles.ts";

const PARAMETERS = {
  ...TILE_PARAMETERS,
  ...ALGEBRA_PARAMETERS,
  ...PARTS_PARAMETERS,
} as const;

/**
 * Moments of every slice of the box.
 *
 * @param options storage of x; how workgroups are made up
 * @returns the kernel: x -> parts
 */
export function momentsKernel(
  options: Tile & { readonly dtype: DType },
): Kernel {
  const { dtype, pack, subgroups } = options;
  return kernel({
    name: "moments",
    options,
    storage: { x: tensor(storedAs(dtype, pack)), parts: channelsResult("vec4f") },
    parameters: PARAMETERS,
    subgroups: subgroups === "declared",
    body: `${tiles(options)}${algebra(options)}${climb(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  var mine = nothing();
  ${
      stroll(
        options,
        (at) => ({ x: `Values(x[offset(p.x, place.channel, ${at})])` }),
        (_, { x }) => merged([x], pack),
        (loads) => merged(loads.map(({ x }) => x), pack),
      )
    }
  let whole = climb(thread, p.span, mine${members(options).given});
  if (place.row == 0u && exists(place)) {
    let c = place.channel;
    let slice = p.firstSlice + place.slice;
    ${
      writeMoments(
        options,
        "parts",
        (channel) => `p.partsAt + ${channel} * p.partsSlices + slice`,
      )
    }
  }
}
`,
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
    return `mine = merge(mine, Moments(${first}, Statistic(0.0), Statistic(0.0), 1.0));`;
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
      mine = merge(mine, about(rough, correction, m2, ${count}.0));
    }`;
}
