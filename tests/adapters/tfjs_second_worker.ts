/** A rank of the test of gradients of gradients: both kinds of kernels on two backends of TensorFlow.js. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Case, ours, penalized, WAYS } from "./tfjs_second.ts";

/** Gradients of each task, in each way. */
export type Found = readonly (readonly (readonly Float32Array[])[])[];

serveRank(async (group, tasks: readonly Case[]): Promise<Found> => {
  await using device = await wasmDevice();
  const found = [];
  for (const { backend, kernels } of WAYS) {
    const tf = await loadTf(backend);
    const own = kernels === "a device" ? device : undefined;
    found.push(
      tasks.map((task) => penalized(tf, ours(tf, task.axis, group, own), task, group.rank)),
    );
  }
  return found;
});
