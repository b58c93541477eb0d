/** The reference device, the same behind a queue, and the in-process groups, as the suites see them. */

import { fromAllGather, type ReferenceArray, referenceDevice, runRanks } from "../mod.ts";
import type { DeviceKit, GroupKit } from "./kit.ts";
import { type QueuedArray, queuedDevice } from "./queued_device.ts";

/** The reference device: float64 arithmetic, one rounding. */
export const referenceKit: DeviceKit<ReferenceArray> = {
  name: "reference",
  open: () => Promise.resolve({ device: referenceDevice(), close: () => Promise.resolve() }),
  ulps: 1,
  nonFinite: true,
  subnormals: true,
  arithmetic: "float64",
};

/** The same arithmetic behind a queue, as on a GPU. */
export const queuedKit: DeviceKit<QueuedArray> = {
  name: "queued reference",
  open: () => Promise.resolve({ device: queuedDevice().device, close: () => Promise.resolve() }),
  ulps: 1,
  nonFinite: true,
  subnormals: true,
  arithmetic: "float64",
};

/** Ranks as tasks of one thread. */
export const inProcessKit: GroupKit = {
  name: "in-process",
  run: (worldSize, { body }, parameter, options) =>
    runRanks(worldSize, (group) => body(group, parameter), options),
};

/** The same ranks, reducing over nothing but a gather that knows no labels. */
export const gatheredKit: GroupKit = {
  name: "fromAllGather",
  reduceOnly: true,
  run: (worldSize, { body }, parameter, options) =>
    runRanks(worldSize, (group) => {
      const allReduce = fromAllGather((local, options) =>
        group.allGather(local, { signal: options?.signal })
      );
      return body(Object.freeze({ ...group, allReduce }), parameter);
    }, options),
};
