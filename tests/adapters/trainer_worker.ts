/** A worker that trains one rank by trainers, with a TensorFlow.js of its own. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Outcome, type Plan, trainRank } from "./trainer_runs.ts";

/** What is trained, one after the other. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  readonly plans: readonly Plan[];
}

serveRank(async (group, { backend, plans }: Order) => {
  const tf = await loadTf(backend);
  const device = await wasmDevice({ threads: 1 });
  const outcomes: Outcome[] = [];
  for (const plan of plans) {
    outcomes.push(await trainRank(tf, plan, { device, group, rank: group.rank }));
  }
  return outcomes;
});
