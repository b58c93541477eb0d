/** The batches: those of the issue, each in both formats where they differ. */

import { type BatchShape, first, last } from "../batches.ts";

const both = (...shape: number[]): BatchShape[] => [first(...shape), last(...shape)];

/** What a call costs, whatever the work: no speed is measured here. */
export const SMALLEST: BatchShape = first(2, 16);

/** Every batch that is measured, the small ones first. */
export const CASES: readonly BatchShape[] = [
  SMALLEST,
  first(256, 128),
  ...both(8, 2048, 7, 7),
  ...both(32, 256, 14, 14),
  ...both(32, 64, 56, 56),
  ...both(64, 3, 224, 224),
  ...both(4, 80, 500, 500),
];

/** Mean of the data that are timed; the standard deviation is always 1. */
export const NEAR = 0.5;
/** Mean of the data that show how exact somebody is: sums of squares in float32 have no digit left there. */
export const FAR = 1e3;
