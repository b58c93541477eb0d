/** A sum of two arrays. */

import type { DType } from "../../lib/tensor.ts";
import { type Kernel, tensor, written } from "./kernel.ts";
import { aheadOf, loop, putValues, storedAs, type Tile, tiledKernel, valuesOf } from "./tiles.ts";

/** x + scale * y, in the storage of x: x, y -> sum. */
export function addScaledKernel(
  options: Tile & { readonly x: DType; readonly y: DType },
): Kernel {
  const [x, y] = [storedAs(options.x, options.pack), storedAs(options.y, options.pack)];
  return tiledKernel({
    name: "addScaled",
    options,
    storage: { x: tensor(x), y: tensor(y), sum: written(tensor(x)) },
    parameters: { scale: "f32" },
    body: loop(
      aheadOf(options.pack),
      (at) => ({ a: valuesOf("x", at), b: valuesOf("y", at) }),
      (at, { a, b }) => putValues("sum", at, `${x}(${a} + p.scale * ${b})`),
    ),
  });
}
