/**
 * How the replicas of a run are started: as tasks of one thread, as workers, or as ranks that already run.
 *
 * @module
 */

import { spawnWorkers } from "../lib/groups/workers.ts";
import { type ProcessGroup, runRanks } from "../mod.ts";
import type { Digits } from "./digits.ts";
import type { Layers } from "./layers.ts";
import { type OnStep, type Run, type Task, train, withStored } from "./train.ts";
import type { FromRank, RankOrder } from "./worker_rank.ts";

/** Trains as many replicas as a task has; tells what replica 0 has learnt. */
export type Runner = (task: Task, onStep?: OnStep) => Promise<Run>;

/**
 * Replicas as tasks of this thread, all on one device.
 *
 * @param layers where they compute
 * @param digits the images
 * @returns the runner
 */
export function inProcessRunner<V, A>(layers: Layers<V, A>, digits: Digits): Runner {
  return (task, onStep) =>
    withStored(layers, digits, async (stored) => {
      const [run] = await runRanks(
        task.replicas,
        (group) => train(layers, stored, group, task, onStep),
      );
      return run;
    });
}

/**
 * Replicas as ranks that already run, of which this process is one; all of them call the runner.
 *
 * @param layers where this one computes
 * @param digits the images
 * @param group this one's handle
 * @returns the runner
 */
export function rankRunner<V, A>(
  layers: Layers<V, A>,
  digits: Digits,
  group: ProcessGroup,
): Runner {
  return (task, onStep) =>
    withStored(layers, digits, (stored) => train(layers, stored, group, task, onStep));
}

/**
 * Replicas as workers, each with a device of its own.
 *
 * @param device what each opens
 * @param digits the images
 * @param exact whether it is exact
 * @returns the runner
 */
export function workerRunner(
  device: RankOrder["device"],
  digits: Digits,
  exact = false,
): Runner {
  return async (task, onStep = () => {}) => {
    let done = false; // What a worker told comes another way than what it returned, and may be late.
    const start = (rank: number): Worker => {
      const worker = new Worker(new URL("./worker_rank.ts", import.meta.url), { type: "module" });
      worker.addEventListener("message", ({ data }: MessageEvent<FromRank | string>) => {
        if (rank === 0 && !done && typeof data === "object") onStep(data.step, data.exam);
      });
      return worker;
    };
    const parameter: RankOrder = { device, exact, digits, task };
    const [run] = await spawnWorkers<RankOrder, Run>(start, task.replicas, { parameter });
    done = true;
    onStep(task.batches.length, run.exams.at(-1));
    return run;
  };
}
