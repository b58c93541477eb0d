/** A copy of elements. */

import type { DType } from "../../lib/tensor.ts";
import { type Kernel, tensor, written } from "./kernel.ts";
import { aheadOf, loop, putValues, storedAs, type Tile, tiledKernel, valuesOf } from "./tiles.ts";

/** x -> y. */
export function copyKernel(options: Tile & { readonly dtype: DType }): Kernel {
  const stored = storedAs(options.dtype, options.pack);
  return tiledKernel({
    name: "copy",
    options,
    storage: { x: tensor(stored), y: written(tensor(stored)) },
    body: loop(
      aheadOf(options.pack),
      (at) => ({ x: valuesOf("x", at) }),
      (at, { x }) => putValues("y", at, `${stored}(${x})`),
    ),
  });
}
