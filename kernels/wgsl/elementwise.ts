/**
 * What needs no statistics: addition, ReLU, and the copy that a gate lets through.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { elementOf, type Kernel, kernel, result, tensor } from "./kernel.ts";
import { entry, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/**
 * x + scale * y, in the storage of x.
 *
 * @param options storage of x and y
 * @returns the kernel: x, y -> sum
 */
export function addScaledKernel(
  options: Tile & { readonly x: DType; readonly y: DType },
): Kernel {
  const element = elementOf(options.x);
  return kernel({
    name: "addScaled",
    options,
    storage: { x: tensor(options.x), y: tensor(options.y), sum: result(options.x) },
    parameters: { ...TILE_PARAMETERS, scale: "f32" },
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  for (var i = place.begin; i < place.end; i += ROWS) {
    let term = p.scale * f32(y[offset(p.y, 0u, i)]);
    sum[offset(p.sum, 0u, i)] = ${element}(f32(x[offset(p.x, 0u, i)]) + term);
  }
}
`,
  });
}

/**
 * max(x, 0); NaN stays NaN.
 *
 * @param options storage of x
 * @returns the kernel: x -> rectified
 */
export function reluKernel(options: Tile & { readonly dtype: DType }): Kernel {
  return kernel({
    name: "relu",
    options,
    storage: { x: tensor(options.dtype), rectified: result(options.dtype) },
    parameters: TILE_PARAMETERS,
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  for (var i = place.begin; i < place.end; i += ROWS) {
    let value = x[offset(p.x, 0u, i)];
    rectified[offset(p.rectified, 0u, i)] = select(value, 0.0, value <= 0.0);
  }
}
`,
  });
}

/**
 * dy where output > 0, else 0; all of dy without an output; in any memory order.
 *
 * @param options storage; channels per workgroup; whether there is an output
 * @returns the kernel: gradOutput, output? -> passed
 */
export function gateKernel(
  options: Tile & { readonly dtype: DType; readonly gated: boolean },
): Kernel {
  const { dtype, gated } = options;
  return kernel({
    name: "gate",
    options,
    storage: {
      gradOutput: tensor(dtype),
      output: gated ? tensor(dtype) : null,
      passed: result(dtype),
    },
    parameters: TILE_PARAMETERS,
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  for (var position = place.begin; position < place.end; position += ROWS) {
    let dy = gradOutput[offset(p.gradOutput, place.channel, position)];
    let open = ${gated ? "output[offset(p.output, place.channel, position)] > 0.0" : "true"};
    passed[offset(p.passed, place.channel, position)] = select(0.0, dy, open);
  }
}
`,
  });
}
