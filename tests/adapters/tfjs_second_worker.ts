/** A rank of the test of gradients of gradients: both kinds of kernels on a backend of TensorFlow.js. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Case, ours, penalized } from "./tfjs_second.ts";

/** What a rank is to do. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  readonly tasks: readonly Case[];
}

/** Gradients of each task, by TensorFlow.js's kernels and by those of a device. */
export type Found = readonly (readonly (readonly Float32Array[])[])[];

serveRank(async (group, { backend, tasks }: Order): Promise<Found> => {
  const tf = await loadTf(backend);
  await using device = await wasmDevice();
  return tasks.map((task) =>
    [undefined, device].map((own) =>
      penalized(tf, ours(tf, task.axis, group, own), task, group.rank)
    )
  );
});
