/**
 * Normalization of a batch: y = (x - mean) * s * weight + bias, then the residual, then ReLU.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { channels, elementOf, type Kernel, kernel, result, tensor } from "./kernel.ts";
import { INVSTD } from "./moments_algebra.ts";
import { type Source, statistics, STATISTICS_PARAMETERS, statisticsStorage } from "./statistics.ts";
import { entry, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/** What a normalization is made of. */
export interface NormalizeOptions extends Tile {
  readonly dtype: DType;
  readonly source: Source;
  readonly weight: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
  readonly relu: boolean;
}

/**
 * Each workgroup merges the slices of its channels' moments, then normalizes its slice of their positions.
 *
 * @param options storage, channels per workgroup, statistics, affine map, epilogue
 * @returns the kernel: x, statistics, weight?, bias?, residual? -> y
 */
export function normalizeKernel(options: NormalizeOptions): Kernel {
  const { dtype, source, weight, bias, residual, relu } = options;
  const element = elementOf(dtype);
  return kernel({
    name: "normalize",
    options,
    storage: {
      x: tensor(dtype),
      ...statisticsStorage(source),
      weight: weight ? channels("f32") : null,
      bias: bias ? channels("f32") : null,
      residual: residual ? tensor(dtype) : null,
      y: result(dtype),
    },
    parameters: { ...TILE_PARAMETERS, ...STATISTICS_PARAMETERS, eps: "f32" },
    body: `${tiles(options)}${statistics(source, options)}${INVSTD}
${entry(options)} {
  let place = locate(group, grid, thread);
  let c = place.channel;
  let stats = statistics(place, thread);
  let scale = invstd(stats)${weight ? " * weight[p.weightAt + c]" : ""};
  // What the mean is short of goes into the offset: x - mean loses no digits, however large the mean.
  let shift = ${bias ? "bias[p.biasAt + c]" : "0.0"} - stats.y * scale;
  for (var position = place.begin; position < place.end; position += ROWS) {
    var value = (f32(x[offset(p.x, c, position)]) - stats.x) * scale + shift;
    ${residual ? "value += f32(residual[offset(p.residual, c, position)]);" : ""}
    ${relu ? "value = select(value, 0.0, value <= 0.0);" : ""}
    y[offset(p.y, c, position)] = ${element}(value);
  }
}
`,
  });
}
