/** The law to the last bit: any partition of a batch over ranks gives the bits of one rank, on any exact device. */

import assert from "node:assert/strict";
import { type Device, type ProcessGroup, referenceDevice } from "../../mod.ts";
import { type ExactScenario, rowsOf } from "./scenario.ts";
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

/** The step of one rank that has the whole batch, in the order of its samples, on the reference device. */
export function exactAlone({ batch }: ExactScenario): Promise<StepBits> {
  const rows = Array.from({ length: batch.samples }, (_, i) => i);
  const formats = { format: "channelsFirst", gradFormat: "channelsFirst" } as const;
  return exactStep(referenceDevice({ exact: true }), batch, rows, formats);
}

/** Fails unless ranks together have the bits of one. */
export function assertSame(ranks: readonly StepBits[], alone: StepBits): void {
  for (const name of ["y", "dx", "dresidual", "evaluated"] as const) {
    const all = ranks.flatMap(({ tensors }) => tensors[name]).toSorted(([a], [b]) => a - b);
    assert.deepEqual(all, alone.tensors[name], name);
  }
  for (const [rank, { vectors }] of ranks.entries()) {
    assert.deepEqual(vectors, alone.vectors, `vectors of rank ${rank}`);
  }
}
