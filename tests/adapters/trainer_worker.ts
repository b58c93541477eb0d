/** A worker that trains one rank by a trainer, with a TensorFlow.js of its own. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Plan, trainRank } from "./trainer_runs.ts";

serveRank(async (group, plan: Plan) =>
  await trainRank(await loadTf("cpu"), plan, {
    device: await wasmDevice({ threads: 1 }),
    group,
    rank: group.rank,
  })
);
