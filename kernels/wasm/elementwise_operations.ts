/**
 * Operations without statistics on Wasm.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import type { WasmArray } from "./arrays.ts";
import { sameOrder } from "./layout.ts";
import { elements, halfOf, MOST, type Operate } from "./workbench.ts";

/** Operations without statistics. */
export type ElementwiseOperations = Pick<Device<WasmArray>, "addScaled" | "relu" | "gate">;

/** Makes the operations without statistics. */
export function elementwiseOperations(operate: Operate): ElementwiseOperations {
  const scratchBytes = 2 * 4 * MOST;
  return Object.freeze<ElementwiseOperations>({
    addScaled: (x, y, scale) =>
      operate(({ arrays, areas, make, parts, run }) => {
        const [augend, addend] = [arrays.slot(x, "elements"), arrays.slot(y, "elements")];
        const { length, dtype } = augend.contents;
        const shares = parts(length);
        const [scratch] = areas(scratchBytes * shares.length);
        const { array, slot } = make(elements(length, dtype));
        run("addScaled", shares, ({ from, to }, thread) => [
          augend.address,
          halfOf(dtype),
          addend.address,
          halfOf(addend.contents.dtype),
          scale,
          slot.address,
          from,
          to,
          scratch + thread * scratchBytes,
        ]);
        return array;
      }),
    relu: (x) =>
      operate(({ arrays, areas, make, parts, run }) => {
        const { address, contents: { length, dtype } } = arrays.slot(x, "elements");
        const shares = parts(length);
        const [scratch] = areas(scratchBytes * shares.length);
        const { array, slot } = make(elements(length, dtype));
        run("relu", shares, ({ from, to }, thread) => [
          address,
          slot.address,
          halfOf(dtype),
          from,
          to,
          scratch + thread * scratchBytes,
        ]);
        return array;
      }),
    gate: (gradOutput, output, format) =>
      operate(({ address, arrays, areas, borrow, copy, make, ordered, parts, run }) => {
        const { data, dtype, shape } = gradOutput;
        const { length } = arrays.slot(data, "elements").contents;
        const { array, slot } = make(elements(length, dtype));
        if (output === null) {
          copy(gradOutput, address(data), slot.address, format);
          return array;
        }
        const half = halfOf(dtype);
        const shares = parts(length);
        const [scratch] = areas(scratchBytes * shares.length);
        const gates = ordered(output, gradOutput.format);
        const direct = sameOrder(shape, gradOutput.format, format);
        const passed = direct ? slot.address : borrow(length * (half ? 2 : 4));
        run("gate", shares, ({ from, to }, thread) => [
          address(data),
          gates,
          passed,
          half,
          from,
          to,
          scratch + thread * scratchBytes,
        ]);
        if (!direct) copy(gradOutput, passed, slot.address, format);
        return array;
      }),
  });
}
