/** What one run measured, and how to look something up in it. */

import type { BatchShape } from "../batches.ts";
import type { Checked, Measurement, Row } from "./rounds.ts";
import type { Absent, Whose, Work } from "./subject.ts";

export const OURS = "syncbn";

export interface Measured {
  readonly date: string;
  readonly machine: string;
  readonly versions: readonly string[];
  readonly rounds: number;
  readonly cases: readonly Measurement[];
  readonly absent: readonly Absent[];
}

export function caseOf(measured: Measured, shape: BatchShape): Measurement | undefined {
  return measured.cases.find((one) =>
    one.shape.format === shape.format && String(one.shape.shape) === String(shape.shape)
  );
}

export function rowOf(measurement: Measurement, whose: Whose, work: Work): Row | undefined {
  return measurement.rows.find((row) =>
    row.name === whose.name && row.threads === whose.threads && row.work === work
  );
}

export function checkedOf(measurement: Measurement, whose: Whose): Checked | undefined {
  return measurement.checks.find(({ name, threads }) =>
    name === whose.name && threads === whose.threads
  );
}
