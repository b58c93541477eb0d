/**
 * What the page and its workers say to each other: plain data.
 *
 * @module
 */

import type { Digits } from "../../digits.ts";
import type { DeviceName } from "../../flags.ts";
import type { Exam, Task } from "../../train.ts";

/** The four runs: one process with the whole batch, and replicas with three kinds of batch norm. */
export type RunName = "one" | "sync" | "local" | "none";

/** All runs, in the order in which they are shown. */
export const RUNS: readonly RunName[] = ["one", "sync", "local", "none"];

/** What a worker is to do. */
export interface Order {
  readonly device: DeviceName;
  readonly digits: Digits;
  /** The runs of its group, which it takes a step of in turn. */
  readonly tasks: { readonly [K in RunName]?: Task };
  /** After which steps it tells what its batch norms are given, and of which images over all replicas. */
  readonly looks:
    | { readonly steps: ReadonlySet<number>; readonly images: readonly number[] }
    | null;
}

/** What a worker tells on its way. */
export type Told =
  | { readonly kind: "opened"; readonly device: string }
  | Stepped
  | Looked
  /** All has been told. The worker ends once it is answered: what it told before would be lost with it otherwise. */
  | { readonly kind: "finished" };

/** The answer to `"finished"`. */
export const HEARD = "heard";

/** A step of a run, told by the first replica. */
export interface Stepped {
  readonly kind: "stepped";
  readonly run: RunName;
  readonly step: number;
  /** What the step took, and the share of it that was spent in collectives. */
  readonly ms: number;
  readonly collectiveMs: number;
  readonly exam?: Exam;
  /** The parameters after it, where the task wants a snapshot. */
  readonly parameters?: Float32Array;
}

/** What the batch norms of a replica are given of its images, block by block. */
export interface Looked {
  readonly kind: "looked";
  readonly step: number;
  readonly rank: number;
  readonly features: readonly Float32Array[];
}
