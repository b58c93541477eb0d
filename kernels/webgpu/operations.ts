/**
 * The operations of a device, put together; the same inside a batch and out.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import type { WebGpuArray } from "./arrays.ts";
import { elementwiseOperations } from "./elementwise_operations.ts";
import { forwardOperations } from "./forward_operations.ts";
import { gradientOperations } from "./gradient_operations.ts";
import { overlappedOperations } from "./overlapped_operations.ts";
import { transfers } from "./transfers.ts";
import { type Machine, workshop } from "./workbench.ts";

/** What a batch changes of a device: everything that launches. */
export type Operations = Omit<
  Device<WebGpuArray>,
  "info" | "free" | "owns" | "describe" | "batch" | "adopt"
>;

/**
 * Makes the operations of a device.
 *
 * @param machine what they are made of
 * @returns the operations
 */
export function operations(machine: Machine): Operations {
  const operate = workshop(machine);
  const forward = forwardOperations(operate);
  const { gradientSums, gradients } = gradientOperations(operate);
  const { normalize } = forward;
  const overlapped = overlappedOperations(operate, machine.limits.choices.overlap);
  return Object.freeze<Operations>({
    ...transfers(operate),
    ...elementwiseOperations(operate),
    ...forward,
    gradientSums,
    gradients,
    fused: Object.freeze({ normalize, gradientSums, gradients }),
    ...(overlapped && { overlapped }),
  });
}
