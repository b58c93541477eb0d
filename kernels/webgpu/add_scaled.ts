/**
 * A sum of two arrays as a launch.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { addScaledKernel } from "../wgsl/add_scaled.ts";
import type { Elements, Slot, WebGpuArray } from "./arrays.ts";
import { type Operate, room } from "./context.ts";
import { type Laid, walk } from "./walks.ts";

/** Makes the operation. */
export function addScaledOperation(operate: Operate): Pick<Device<WebGpuArray>, "addScaled"> {
  return {
    addScaled: ({ x, y, scale }) =>
      operate((context) => {
        const { arrays, recorder: { batch } } = context;
        const augend = arrays.slot(x, batch, "elements");
        const { length, dtype } = augend.contents;
        const addend = arrays.slot(y, batch, "elements", length);
        const [array, sum] = room(context, augend.contents);
        if (length === 0) return array;
        const row = (slot: Slot<Elements>): Laid => ({ slot, format: "channelsFirst" });
        const over = walk(context, {
          shape: [1, 1, length],
          tensors: { x: row(augend), y: row(addend), sum: row(sum) },
          beside: {},
        });
        over.launch({
          kernel: addScaledKernel,
          options: { x: dtype, y: addend.contents.dtype, subgroups: "none" },
          arrays: {},
          slices: over.slices(1),
          parameters: { scale },
        });
        return array;
      }),
  };
}
