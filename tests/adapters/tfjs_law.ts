/** The two sides of the law: trainings by ranks, all in the same workers, and what one process comes to. */

import { spawnWorkers } from "../../lib/groups/workers.ts";
import { inProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { modelOf, trainAlone, type Trained, type Training, trainRank } from "./tfjs_ranks.ts";
import type { Order } from "./tfjs_worker.ts";

/** A backend of TensorFlow.js. */
export type Backend = Order["backend"];

/** What the ranks of a task found, in rank order. */
export type Ranks = (task: Training) => Promise<readonly Trained[]>;

/**
 * Trains all tasks in the same workers, from the first that is asked for on: an isolate takes a second to load TensorFlow.js,
 * and more until it runs at full speed.
 */
export function ranksOf(orders: readonly Order[]): Ranks {
  let started: Promise<ReadonlyMap<Training, readonly Trained[]>> | undefined;
  const start = async () => {
    // Those of more ranks first, so that nobody waits.
    const sorted = orders.map(({ backend, tasks }): Order => ({
      backend,
      tasks: tasks.toSorted((a, b) => b.counts.length - a.counts.length),
    }));
    const all = sorted.flatMap(({ tasks }) => tasks);
    const worker = new URL("./tfjs_worker.ts", import.meta.url);
    const workers = await spawnWorkers<readonly Order[], (Trained | null)[]>(
      ...[worker, Math.max(...all.map(({ counts }) => counts.length))] as const,
      { wait: "block", parameter: sorted },
    );
    return new Map(all.map((task, i) => {
      const found = workers.map((worker) => worker[i]).filter((own) => own !== null);
      return [task, found];
    }));
  };
  return async (task) => {
    const found = (await (started ??= start())).get(task);
    if (found?.length === task.counts.length) return found;
    throw new Error("a task that was not among those of the workers");
  };
}

const known = new Map<string, Promise<Trained>>();

/**
 * What one process comes to on the whole batch: plain TensorFlow.js or, where it cannot train, one rank of ours. Tasks that
 * differ in their ranks alone have the same.
 */
export function oneOf(backend: Backend, task: Training): Promise<Trained> {
  const { counts, ours, whenOut: _, ...rest } = task;
  const { plain } = modelOf(task);
  const whole = [counts.reduce((total, count) => total + count)];
  const key = JSON.stringify([backend, rest, whole, plain || ours]);
  const found = known.get(key) ?? loadTf(backend).then((tf) => {
    const [alone] = inProcessGroup(1);
    return plain ? trainAlone(tf, task) : trainRank(tf, alone, { ...task, counts: whole });
  });
  known.set(key, found);
  return found;
}
