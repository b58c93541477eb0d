/**
 * Addition, ReLU and gate as launches.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { addScaledKernel, gateKernel, reluKernel } from "../wgsl/elementwise.ts";
import type { Tile } from "../wgsl/tiles.ts";
import type { Elements, Slot, WebGpuArray } from "./arrays.ts";
import type { Bench, Operate, Tiled } from "./workbench.ts";

/** Operations without statistics. */
export type ElementwiseOperations = Pick<Device<WebGpuArray>, "addScaled" | "relu" | "gate">;

/** Makes the operations without statistics. */
export function elementwiseOperations(operate: Operate): ElementwiseOperations {
  return Object.freeze<ElementwiseOperations>({
    addScaled: (x, y, scale) =>
      operate((bench) => {
        const [augend, addend] = [bench.elements(x), bench.elements(y)];
        const [array, sum] = bench.room(augend.contents);
        const dtypes = { x: augend.contents.dtype, y: addend.contents.dtype };
        const kernel: Tiled = (tile) => bench.kernel(addScaledKernel, { ...tile, ...dtypes });
        overElements(bench, kernel, { x: augend, y: addend, sum }, { scale });
        return array;
      }),
    relu: (x) =>
      operate((bench) => {
        const slot = bench.elements(x);
        const [array, rectified] = bench.room(slot.contents);
        const { dtype } = slot.contents;
        const kernel: Tiled = (tile) => bench.kernel(reluKernel, { ...tile, dtype });
        overElements(bench, kernel, { x: slot, rectified }, {});
        return array;
      }),
    gate: (gradOutput, output, format) =>
      operate((bench) => {
        const given = { gradOutput: bench.part(gradOutput), output: bench.partOrNull(output) };
        const [array, slot] = bench.room(given.gradOutput.slot.contents);
        if (slot.contents.length === 0) return array;
        // The tensor that is written comes first: its channels decide who writes what.
        const over = bench.plan(gradOutput.shape, { passed: { slot, format }, ...given }, {});
        over.launch(bench.recorder, {
          kernel: bench.kernel(gateKernel, {
            ...alone(over.tile),
            dtype: gradOutput.dtype,
            gated: output !== null,
          }),
          arrays: {},
          slices: over.shares(1),
        });
        return array;
      }),
  });
}

/** Launches a kernel over arrays of one length. */
function overElements(
  bench: Bench,
  kernel: Tiled,
  slots: Readonly<Record<string, Slot<Elements>>>,
  parameters: Readonly<Record<string, number>>,
): void {
  const [{ contents: { length } }] = Object.values(slots);
  if (length === 0) return;
  const tensors = Object.fromEntries(
    Object.entries(slots).map(([name, slot]) => [name, { slot, format: "channelsFirst" as const }]),
  );
  const over = bench.plan([1, 1, length], tensors, {});
  over.launch(bench.recorder, {
    kernel: kernel(alone(over.tile)),
    arrays: {},
    slices: over.shares(1),
    also: () => ({ parameters }),
  });
}

/** A tile of invocations that have nothing to merge. */
function alone(tile: Tile): Tile {
  return { ...tile, subgroups: "none" };
}
