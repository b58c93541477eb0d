/** A worker of the adapter's tests: one rank, which trains by TensorFlow.js of its own, alone or with some of the others. */

import { serveRank } from "../../lib/groups/workers.ts";
import type { ProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Training, trainRank } from "./tfjs_ranks.ts";

/** What a rank is to do on a backend. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  /** Each for the first ranks, as many as it has counts. */
  readonly tasks: readonly Training[];
}

serveRank(async (group, orders: readonly Order[]) => {
  const groups = new Map<number, ProcessGroup>();
  const sizes = orders.flatMap(({ tasks }) => tasks.map(({ counts }) => counts.length));
  for (const ranks of new Set(sizes)) {
    groups.set(ranks, await group.split(group.rank < ranks ? 0 : 1));
  }
  const all = [];
  for (const { backend, tasks } of orders) {
    const tf = await loadTf(backend);
    for (const task of tasks) {
      const ranks = task.counts.length;
      // Workers that hold up their thread are asked whether they live, and taken for dead after a minute without an answer.
      await new Promise((resolve) => setTimeout(resolve));
      all.push(group.rank < ranks ? await trainRank(tf, groups.get(ranks)!, task) : null);
    }
  }
  return all;
});
