/** A worker of the adapter's tests: one rank, which trains by TensorFlow.js of its own, alone or with some of the others. */

import { serveRank } from "../../lib/groups/workers.ts";
import type { ProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Training, trainRank } from "./tfjs_ranks.ts";

/** What a rank is to do. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  /** Each for the first ranks, as many as it has counts; those of more ranks first, so that nobody waits. */
  readonly tasks: readonly Training[];
}

serveRank(async (group, { backend, tasks }: Order) => {
  const tf = await loadTf(backend);
  const groups = new Map<number, ProcessGroup>();
  for (const ranks of new Set(tasks.map(({ counts }) => counts.length))) {
    groups.set(ranks, await group.split(group.rank < ranks ? 0 : 1));
  }
  const all = [];
  for (const task of tasks) {
    const ranks = task.counts.length;
    // Workers that hold up their thread are asked whether they live, and taken for dead after a minute without an answer.
    await new Promise((resolve) => setTimeout(resolve));
    all.push(group.rank < ranks ? await trainRank(tf, groups.get(ranks)!, task) : null);
  }
  return all;
});
