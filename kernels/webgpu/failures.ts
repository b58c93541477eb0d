/**
 * What a GPU reports late: every failure is kept, and meets the caller at the next opportunity.
 *
 * What a GPU reports late makes the whole handle unusable, not one array: whatever was computed from an array that
 * never was is wrong too, and a new handle on the same GPUDevice is cheap. Error scopes are around the handle's own
 * calls only: a borrowed GPUDevice has other users, whose errors are not ours.
 */

import { DeviceError, type DeviceErrorCode } from "../../lib/errors.ts";

/** The failures of one handle. Once it has failed it stays so. */
export interface Failures {
  /** Throws where the device has failed. */
  readonly check: () => void;
  /**
   * Runs calls of WebGPU and listens for validation errors and for those of `besides` that come of them; `what` completes
   * "The GPU could not ...".
   */
  readonly guard: <T>(what: string, besides: readonly GPUErrorFilter[], body: () => T) => T;
  /** Waits for the reports that are under way. */
  readonly reported: () => Promise<void>;
  /** Gives the device up, for this reason or for an earlier one. */
  readonly fail: (error: DeviceError) => DeviceError;
  /** Makes a rejected map into an error of the device, waiting for the reason if there is one on its way. */
  readonly explain: (cause: unknown) => Promise<DeviceError>;
}

const CODES: Record<GPUErrorFilter, DeviceErrorCode> = {
  validation: "validation",
  "out-of-memory": "outOfMemory",
  internal: "internal",
};

const HINTS: Record<DeviceErrorCode, string> = {
  lost: "request a new GPUDevice and go on from the last state that was read back",
  outOfMemory: "free arrays or use smaller batches, and go on with a new handle on the GPUDevice",
  validation: "this is a bug of the library, or a wrapped buffer does not fit; " +
    "go on with a new handle on the GPUDevice",
  internal: "the driver gave up; go on with a new handle on the GPUDevice, or with another device",
  unsupported: "use another device",
};

/** A device that is lost may say so this much later than what came of it fails, in ms; in Firefox it does by 50. */
const LOSS_MS = 300;

/** Begins to listen to a device, whose loss is to be noticed too. */
export function createFailures(gpuDevice: GPUDevice): Failures {
  let failure: DeviceError | undefined;
  const pending = new Set<Promise<void>>();

  const fail = (error: DeviceError): DeviceError => failure ??= error;
  const report = (code: DeviceErrorCode, what: string, cause: unknown): DeviceError => {
    const { message, reason } = cause as { message?: string; reason?: string };
    const said = `${message || reason || cause}`.replaceAll(/\s+/g, " ").trim();
    return fail(
      new DeviceError(`The GPU could not ${what}: ${said}. To go on: ${HINTS[code]}`, code, {
        cause,
      }),
    );
  };
  const lost = gpuDevice.lost.then((info) => report("lost", "go on as it was lost", info));
  const lossTold = async (): Promise<void> => {
    if (failure) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise((resolve) => timer = setTimeout(resolve, LOSS_MS));
    await Promise.race([lost, late]);
    clearTimeout(timer);
  };

  const guard = <T>(what: string, besides: readonly GPUErrorFilter[], body: () => T): T => {
    const filters = ["validation", ...besides] as const;
    for (const filter of filters) gpuDevice.pushErrorScope(filter);
    try {
      return body();
    } finally {
      for (const filter of filters.toReversed()) {
        const popped = gpuDevice.popErrorScope().then(
          async (error) => {
            if (!error) return;
            await lossTold();
            report(CODES[filter], what, error);
          },
          () => {}, // A lost device has no scopes any more; `lost` says so.
        );
        const waiting = popped.finally(() => pending.delete(waiting));
        pending.add(waiting);
      }
    }
  };
  const check = (): void => {
    if (failure) throw failure;
  };
  const reported = async (): Promise<void> => {
    await Promise.all(pending); // Those of now: what others launch meanwhile is theirs to await.
  };
  return Object.freeze({
    check,
    guard,
    fail,
    reported,
    explain: async (cause: unknown) => {
      await reported();
      await lossTold();
      return failure ?? report("validation", "read the array back", cause);
    },
  });
}
