/**
 * What needs no statistics: addition, ReLU, and the copy that a gate lets through.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { gradientLoads, passed } from "./gradient_sums.ts";
import { type Kernel, kernel, result, tensor } from "./kernel.ts";
import { plainGate } from "./mask.ts";
import { entry, storedAs, stroll, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/**
 * x + scale * y, in the storage of x.
 *
 * @param options storage of x and y, how workgroups are made up
 * @returns the kernel: x, y -> sum
 */
export function addScaledKernel(
  options: Tile & { readonly x: DType; readonly y: DType },
): Kernel {
  const { pack } = options;
  const [x, y] = [storedAs(options.x, pack), storedAs(options.y, pack)];
  return kernel({
    name: "addScaled",
    options,
    storage: { x: tensor(x), y: tensor(y), sum: result(x) },
    parameters: { ...TILE_PARAMETERS, scale: "f32" },
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  ${
      stroll(
        options,
        (at) => ({
          a: `Values(x[offset(p.x, 0u, ${at})])`,
          b: `Values(y[offset(p.y, 0u, ${at})])`,
        }),
        (at, { a, b }) => `sum[offset(p.sum, 0u, ${at})] = ${x}(${a} + p.scale * ${b});`,
      )
    }
}
`,
  });
}

/**
 * max(x, 0); NaN stays NaN.
 *
 * @param options storage of x, how workgroups are made up
 * @returns the kernel: x -> rectified
 */
export function reluKernel(options: Tile & { readonly dtype: DType }): Kernel {
  const stored = storedAs(options.dtype, options.pack);
  return kernel({
    name: "relu",
    options,
    storage: { x: tensor(stored), rectified: result(stored) },
    parameters: TILE_PARAMETERS,
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  ${
      stroll(
        options,
        (at) => ({ value: `x[offset(p.x, 0u, ${at})]` }),
        (at, { value }) =>
          `rectified[offset(p.rectified, 0u, ${at})] =
      select(${value}, ${stored}(0.0), ${value} <= ${stored}(0.0));`,
      )
    }
}
`,
  });
}

/**
 * dy where output > 0, else 0; all of dy without an output; in any memory order.
 *
 * @param options storage, how workgroups are made up, whether there is an output
 * @returns the kernel: gradOutput, output? -> passed
 */
export function gateKernel(
  options: Tile & { readonly dtype: DType; readonly gated: boolean },
): Kernel {
  const { dtype, pack, gated } = options;
  const stored = storedAs(dtype, pack);
  return kernel({
    name: "gate",
    options,
    storage: {
      gradOutput: tensor(stored),
      output: gated ? tensor(stored) : null,
      passed: result(stored),
    },
    parameters: TILE_PARAMETERS,
    body: `${tiles(options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  ${
      stroll(
        options,
        gradientLoads(plainGate(gated)),
        (at, names) =>
          `passed[offset(p.passed, place.channel, ${at})] = ${stored}(${passed(names)});`,
      )
    }
}
`,
  });
}
