/**
 * A sum of two arrays as a launch.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { addScaledKernel } from "../wgsl/add_scaled.ts";
import type { Slot, WebGpuArray } from "./arrays.ts";
import type { Operate } from "./context.ts";

/** Makes the operation. */
export function addScaledOperation(operate: Operate): Pick<Device<WebGpuArray>, "addScaled"> {
  return {
    addScaled: ({ x, y, scale }) =>
      operate((context) => {
        const augend = context.elements(x);
        const { length, dtype } = augend.contents;
        const addend = context.elements(y, length);
        const [array, sum] = context.room(augend.contents);
        if (length === 0) return array;
        const row = (slot: Slot<typeof augend.contents>) =>
          ({ slot, format: "channelsFirst" }) as const;
        const over = context.walk({
          shape: [1, 1, length],
          tensors: { x: row(augend), y: row(addend), sum: row(sum) },
          beside: {},
        });
        const dtypes = { x: dtype, y: addend.contents.dtype };
        over.launch({
          kernel: (tile) =>
            context.kernel(addScaledKernel, { ...tile, ...dtypes, subgroups: "none" }),
          arrays: {},
          slices: over.slices(1),
          parameters: { scale },
        });
        return array;
      }),
  };
}
