/** The law to the last bit: any partition of a batch over ranks gives the bits of one rank, on any exact device. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { type Device, type ProcessGroup, referenceDevice } from "../../mod.ts";
import { type GroupKit, register } from "../kit.ts";
import { type ExactScenario, exactScenarios, rowsOf } from "./scenario.ts";
import { exactStep, type StepBits } from "./step.ts";

/** A rank of {@linkcode assertExact}, which can run anywhere. */
export interface ExactRank {
  readonly scenario: ExactScenario;
  readonly blocking: boolean;
}

/** One rank of a scenario on a reference device of its own; exported so that a rank in another thread can find it. */
export function exactOnReference(
  group: ProcessGroup,
  { scenario, blocking }: ExactRank,
): Promise<StepBits> {
  return exactRank(referenceDevice({ exact: true }), group, scenario, blocking);
}

/** One rank of a scenario on a device. */
export function exactRank<A>(
  device: Device<A>,
  group: ProcessGroup,
  { batch, partition }: ExactScenario,
  blocking = false,
): Promise<StepBits> {
  const rows = rowsOf(batch, partition)[group.rank];
  return exactStep(device, batch, rows, partition, group, blocking);
}

/** One rank of several scenarios, one after the other, as many ranks as there are; exported for the same reason. */
export async function manyExactOnReference(
  group: ProcessGroup,
  ranks: readonly ExactRank[],
): Promise<StepBits[]> {
  const steps: StepBits[] = [];
  for (const rank of ranks) steps.push(await exactOnReference(group, rank));
  return steps;
}

const many = {
  module: import.meta.url,
  name: "manyExactOnReference",
  body: manyExactOnReference,
};

/** Registers the law to the last bit for a kind of group, awaited and, where it can, blocking. */
export function exactGroupLaw(kit: GroupKit): void {
  register(kit, "exact ranks have the bits of one, in any partition", async () => {
    const worldSize = 4;
    const drawn = fc.sample(exactScenarios(), { numRuns: 12, seed: 2032 }).map((scenario, i) => ({
      scenario: { ...scenario, partition: { ...scenario.partition, ranks: worldSize } },
      blocking: kit.blocks === true && i % 2 === 1,
    }));
    const ranks = await kit.run(worldSize, many, drawn);
    for (const [i, { scenario }] of drawn.entries()) {
      assertSame(ranks.map((steps) => steps[i]), await exactAlone(scenario));
    }
  });
}

/** The step of one rank that has the whole batch, in the order of its samples, on the reference device. */
export function exactAlone({ batch }: ExactScenario): Promise<StepBits> {
  const rows = Array.from({ length: batch.samples }, (_, i) => i);
  const formats = { format: "channelsFirst", gradFormat: "channelsFirst" } as const;
  return exactStep(referenceDevice({ exact: true }), batch, rows, formats);
}

/** Fails unless ranks together have the bits of one. */
export function assertSame(ranks: readonly StepBits[], alone: StepBits): void {
  for (const name of ["y", "dx", "dresidual", "moved", "evaluated", "evaluatedDx"] as const) {
    const all = ranks.flatMap(({ tensors }) => tensors[name]).toSorted(([a], [b]) => a - b);
    assert.deepEqual(all, alone.tensors[name], name);
  }
  for (const [rank, { vectors }] of ranks.entries()) {
    assert.deepEqual(vectors, alone.vectors, `vectors of rank ${rank}`);
  }
}
