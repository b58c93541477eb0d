/** Addition on Wasm. */

import type { Device } from "../../lib/device.ts";
import type { WasmArray } from "./arrays.ts";
import { elements, MOST, type Operate } from "./context.ts";
import { halfOf } from "./layout.ts";

/** Makes the operation without statistics. */
export function elementwiseOperations(operate: Operate): Pick<Device<WasmArray>, "addScaled"> {
  const scratchBytes = 2 * 4 * MOST;
  return {
    addScaled: ({ x, y, scale }) =>
      operate(({ arrays, areas, make, parts, run }) => {
        const [augend, addend] = [arrays.slot(x, "elements"), arrays.slot(y, "elements")];
        const { length, dtype } = augend.contents;
        if (addend.contents.length !== length) {
          throw new TypeError(
            `Cannot add the arrays as their lengths must be equal: current values are ${length} and ${addend.contents.length}`,
          );
        }
        const shares = parts(length);
        const [scratch] = areas(scratchBytes * shares.length);
        const { array, slot } = make(elements(length, dtype));
        const [a, b, sum] = [augend.address, addend.address, slot.address];
        const [halfA, halfB] = [halfOf(dtype), halfOf(addend.contents.dtype)];
        run("addScaled", shares, ({ from, to }, thread) => {
          return [a, halfA, b, halfB, scale, sum, from, to, scratch + thread * scratchBytes];
        });
        return array;
      }),
  };
}
