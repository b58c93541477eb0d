/** An engine in the failure report. */

import type { Kind, Outcome, Plan, Soak } from "./scenarios.ts";

/** What came of one start of the ranks. */
export interface Trial {
  /** What each rank has seen, one entry per time; null for a rank that did not live to tell. */
  readonly outcomes: readonly (readonly Outcome[] | null)[];
  /** How the start itself failed, for whoever started it; null where it did not. */
  readonly failed: string | null;
  /** Whether a launcher killed the ranks that survived, and said so by its exit code. */
  readonly killedByLauncher?: boolean;
  /** From the start of the ranks to the end of all of them. */
  readonly seconds: number;
  /** Processes, threads, files in shared memory that were there afterwards and not before. */
  readonly leftBehind: readonly string[];
}

/** An engine under failure. */
export interface Subject {
  readonly name: string;
  /** Whether the ranks must be started anew for every time, as one of them does not survive. */
  readonly restarts: (kind: Kind) => boolean;
  readonly trial: (plan: Plan) => Promise<Trial>;
  /** Many small all-reduces on two ranks. */
  readonly soak: (times: number) => Promise<Soak>;
}
