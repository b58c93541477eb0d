/** Addition and copies on Wasm. */

import type { Device } from "../../lib/device.ts";
import { elements as elementsIn } from "../../lib/tensor.ts";
import { bytesOf, type WasmArray } from "./arrays.ts";
import { elements, MOST, type Operate } from "./context.ts";
import { halfOf } from "./layout.ts";

/** Makes the operations without statistics. */
export function elementwiseOperations(
  operate: Operate,
): Pick<Device<WasmArray>, "addScaled" | "arrange"> {
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
    arrange: ({ parts }) =>
      operate(({ copy, make, makeIn, tensor }) => {
        const { shape: [, ...sample], dtype, format } = parts[0].input;
        const each = elementsIn(sample);
        const ranges = parts.map(({ input, from, to }) => {
          const address = tensor(input, { elements: elementsIn(input.shape), dtype });
          const before = bytesOf(elements(from * each, dtype));
          return { address, before, contents: elements((to - from) * each, dtype) };
        });
        const [{ before, contents }] = ranges;
        if (parts.length === 1) return makeIn(parts[0].input.data, before, contents).array;
        const length = ranges.reduce((sum, { contents }) => sum + contents.length, 0);
        const { array, slot } = make(elements(length, dtype));
        let to = slot.address;
        for (const { address, before, contents } of ranges) {
          const row = { shape: [1, 1, contents.length], dtype, format };
          copy(row, address + before, to, format);
          to += bytesOf(contents);
        }
        return array;
      }),
  };
}
