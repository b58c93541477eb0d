/** A worker of the adapter's tests: one rank, which trains by TensorFlow.js of its own. */

import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Training, trainRank } from "./tfjs_ranks.ts";

/** What a rank is to do. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  readonly tasks: readonly Training[];
}

serveRank(async (group, { backend, tasks }: Order) => {
  const tf = await loadTf(backend);
  const all = [];
  for (const task of tasks) all.push(await trainRank(tf, group, task));
  return all;
});
