/** What one run on a GPU measured. */

import type { Errors } from "../errors.ts";
import { bytesOf, type Case, type Work } from "./cases.ts";
import type { TorchTimes } from "./torch.ts";

/** A copy of a tensor, the limit: by the queue, and by a kernel. */
export type Copy = "copy" | "copy kernel";
export const COPIES: readonly Copy[] = ["copy", "copy kernel"];

/** What one case took, in ms per call. */
export interface CaseTimes {
  readonly case: Case;
  readonly errors: Errors;
  /** By the wall clock: so many calls and one wait, less an empty wait. */
  readonly wall: Readonly<Record<Work | Copy, number>>;
  /** Between two timestamps of the GPU; null where it has none. */
  readonly gpu: Readonly<Record<Work | Copy, number>> | null;
}

/** What a peer took, in ms per call by the wall clock, and how exact it is. */
export interface PeerTimes {
  readonly forward: number;
  readonly both: number;
  readonly errors: Errors;
}

export interface MeasuredCase {
  readonly ours: CaseTimes;
  readonly torch: TorchTimes | null;
  readonly peers: Readonly<Record<string, PeerTimes>>;
}

/** Two ranks on one GPU, ms of a forward and backward. */
export interface MeasuredRanks {
  readonly shape: readonly number[];
  /** Ours: two ranks of a thread on one device, and two workers with a device each. */
  readonly thread: number;
  readonly workers: number;
  /** SyncBatchNorm over gloo; null where it was not measured. */
  readonly torch: number | null;
}

export interface MeasuredGpu {
  readonly date: string;
  readonly adapter: string;
  /** Whether the adapter is software: its times say nothing. */
  readonly software: boolean;
  readonly versions: readonly string[];
  readonly command: string;
  readonly rounds: number;
  readonly cases: readonly MeasuredCase[];
  readonly ranks: readonly MeasuredRanks[];
  readonly absent: readonly string[];
}

/** The GPU's times, or the wall's where it has no clock. */
export function timesOf({ ours: { gpu, wall } }: MeasuredCase) {
  return gpu ?? wall;
}

/** GB/s of the faster copy of a case. */
export function copySpeed(one: MeasuredCase): number {
  const times = timesOf(one);
  return 2 * bytesOf(one.ours.case) / Math.min(...COPIES.map((copy) => times[copy])) / 1e6;
}
