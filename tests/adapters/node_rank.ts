/** A rank that trains by TensorFlow.js in a worker of Node, on its backends: the worker's half of ./node_program.ts. */

import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./node_load.ts";
import { type Trained, trainRank } from "./tfjs_ranks.ts";
import type { Order } from "./tfjs_worker.ts";

serveRank(async (group, orders: readonly Order[]) => {
  const all: Trained[][] = [];
  for (const { backend, tasks } of orders) {
    const tf = await loadTf(backend);
    const found: Trained[] = [];
    for (const task of tasks) found.push(await trainRank(tf, group, task));
    all.push(found);
  }
  return all;
});
