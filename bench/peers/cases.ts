/**
 * The batches: those of the issue, each in both formats where they differ.
 *
 * @module
 */

import { normalArray } from "../../tests/random.ts";
import { type BatchShape, elementsOf } from "../batches.ts";
import type { Numbers } from "./subject.ts";

const both = (...shape: number[]): BatchShape[] => [
  { shape, format: "channelsFirst" },
  { shape, format: "channelsLast" },
];
const matrix = (...shape: number[]): BatchShape => ({ shape, format: "channelsFirst" });

/** What a call costs, whatever the work: no speed is measured here. */
export const SMALLEST: BatchShape = matrix(2, 16);

/** Every batch that is measured, the small ones first. */
export const CASES: readonly BatchShape[] = [
  SMALLEST,
  matrix(256, 128),
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

/** How many numbers are drawn; a prime, so that channels of larger batches repeat each other at other places. */
const DRAWN = 4_194_301;

/**
 * Makes a source of batches: x of some mean and standard deviation 1, dy of 0 and 1, weights about 1.
 *
 * @returns draws the numbers of a shape for a mean of x, the same ones at every call
 */
export function numberSource(): (shape: BatchShape, mean: number) => Numbers {
  const drawn = { x: normalArray(DRAWN, 1), dy: normalArray(DRAWN, 2) };
  const repeated = (values: Float32Array, length: number) => {
    const all = new Float32Array(length);
    for (let at = 0; at < length; at += values.length) {
      all.set(values.subarray(0, Math.min(values.length, length - at)), at);
    }
    return all;
  };
  return (shape, mean) => {
    const [elements, channels] = [elementsOf(shape), shape.shape[1]];
    const x = repeated(drawn.x, elements);
    for (let i = 0; i < elements; i++) x[i] += mean;
    return {
      x,
      dy: repeated(drawn.dy, elements),
      weight: normalArray(channels, 3, 1, 0.1),
      bias: normalArray(channels, 4, 0, 0.1),
    };
  };
}
