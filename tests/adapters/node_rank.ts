/** A rank that trains by TensorFlow.js in a worker of Node: the worker's half of ./node_program.ts. */

import { serveRank } from "../../lib/groups/workers.ts";
import { loadTf } from "./node_load.ts";
import { type Training, trainRank } from "./tfjs_ranks.ts";

serveRank(async (group, tasks: readonly Training[]) => {
  const tf = await loadTf();
  const all = [];
  for (const task of tasks) all.push(await trainRank(tf, group, task));
  return all;
});
