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
import { ALGEBRA_PARAMETERS, climb, MERGE } from "./moments_algebra.ts";
import { entry, HELD, PARTS_PARAMETERS, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

const PARAMETERS = {
  ...TILE_PARAMETERS,
  ...ALGEBRA_PARAMETERS,
  ...PARTS_PARAMETERS,
} as const;

/**
 * Moments of every slice of the box.
 *
 * @param options storage of x; channels per workgroup
 * @returns the kernel: x -> parts
 */
export function momentsKernel(
  options: Tile & { readonly dtype: DType },
): Kernel {
  return kernel({
    name: "moments",
    options,
    storage: { x: tensor(options.dtype), parts: channelsResult("vec4f") },
    parameters: PARAMETERS,
    body: `${tiles(options)}${MERGE}${climb(options)}
const HELD = ${HELD}u;

${entry(options)} {
  let place = locate(group, grid, thread);
  var mine = vec4f(0.0);
  for (var first = place.begin; first < place.end; first += ROWS * HELD) {
    var held: array<f32, HELD>;
    var n = 0u;
    for (var position = first; n < HELD && position < place.end; position += ROWS) {
      held[n] = f32(x[offset(p.x, place.channel, position)]);
      n++;
    }
    // The first pass finds a mean, measured from one of the values, so that equal values have exactly that mean. The
    // second corrects it: what it started from may have been an outlier.
    var shift = 0.0;
    for (var j = 1u; j < n; j++) { shift += held[j] - held[0]; }
    let rough = held[0] + shift / f32(n);
    var sum = 0.0;
    var squares = 0.0;
    for (var j = 0u; j < n; j++) {
      let deviation = held[j] - rough;
      sum += deviation;
      squares += deviation * deviation;
    }
    let correction = sum / f32(n);
    let m2 = max(squares - sum * correction, 0.0);
    mine = merge(mine, vec4f(twoSum(rough, correction), m2, f32(n)));
  }
  tree[thread] = mine;
  climb(thread, p.span);
  if (place.row == 0u && place.channel < p.channels) {
    let slice = p.firstSlice + place.slice;
    parts[p.partsAt + place.channel * p.partsSlices + slice] = tree[thread];
  }
}
`,
  });
}
