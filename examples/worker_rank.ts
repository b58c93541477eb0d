/**
 * The module of a worker that is one replica.
 *
 * @module
 */

import { serveRank } from "../lib/groups/workers.ts";
import { noAdapter, openPlace } from "./devices.ts";
import type { Digits } from "./digits.ts";
import type { ChosenDevice } from "./flags.ts";
import { type Exam, type OnStep, type Task, train, withStored } from "./train.ts";

/** What a worker is given: plain data. */
export interface RankOrder {
  readonly device: ChosenDevice;
  readonly exact: boolean;
  readonly digits: Digits;
  readonly task: Task;
}

/** What replica 0 tells after each step but the last, which the run itself tells of. */
export interface FromRank {
  readonly step: number;
  readonly exam?: Exam;
}

const scope = globalThis as unknown as { readonly postMessage: (message: FromRank) => void };

serveRank(async (group, { device, exact, digits, task }: RankOrder) => {
  await using place = await openPlace(device, exact);
  if (place === null) throw noAdapter(`rank ${group.rank}`);
  const onStep: OnStep = (step, exam) => {
    if (step < task.batches.length) scope.postMessage({ step, exam });
  };
  return await place.onLayers((layers) =>
    withStored(layers, digits, (stored) => train(layers, stored, group, task, onStep))
  );
});
