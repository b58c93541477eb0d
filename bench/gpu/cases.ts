/** What is measured on a GPU: batches, storages, with and without what is fused, and how many bytes each work moves. */

import type { DType } from "../../mod.ts";
import { type BatchShape, elementsOf, titleOf } from "../batches.ts";

export type Work = "inference" | "forward" | "backward";

export const WORKS: readonly Work[] = ["inference", "forward", "backward"];

export interface Case {
  readonly batch: BatchShape;
  readonly dtype: DType;
  readonly fused: boolean;
}

/** The shapes of the issue: those that CPUs are measured at, and larger ones; 5-D too. */
const SHAPES: readonly (readonly number[])[] = [
  [256, 128],
  [8, 2048, 7, 7],
  [32, 256, 14, 14],
  [32, 2048, 7, 7],
  [32, 64, 56, 56],
  [64, 3, 224, 224],
  [4, 80, 500, 500],
  [256, 64, 112, 112],
  [16, 32, 32, 64, 64],
];
const SOFTWARE_SHAPES: readonly (readonly number[])[] = [[64, 16], [4, 8, 6, 6], [3, 5, 7]];

export function casesFor(software: boolean, dtypes: readonly DType[]): readonly Case[] {
  return (software ? SOFTWARE_SHAPES : SHAPES).flatMap((shape) => {
    const formats = shape.length === 2
      ? ["channelsFirst"] as const
      : ["channelsFirst", "channelsLast"] as const;
    return formats.flatMap((format) =>
      dtypes.flatMap((dtype) =>
        [false, true].map((fused): Case => ({ batch: { shape, format }, dtype, fused }))
      )
    );
  });
}

export function bytesOf({ batch, dtype }: Case): number {
  return elementsOf(batch) * (dtype === "float16" ? 2 : 4);
}

/**
 * Tensors that a work reads or writes if nothing stays in cache: forward reads x twice and writes y; backward reads x and dy
 * twice and writes dx; fused, forward reads the residual, and backward writes its gradient. What tells backward where ReLU was
 * open is not counted: a bit per element where four neighbours are of one kind, the output itself where they are not.
 */
export function passesOf(work: Work, fused: boolean): number {
  return { inference: 2, forward: 3, backward: 5 }[work] + (fused ? 1 : 0);
}

export function speedOf(one: Case, work: Work, milliseconds: number): number {
  return passesOf(work, one.fused) * bytesOf(one) / milliseconds / 1e6;
}

export function titleOfCase({ batch, dtype, fused }: Case): string {
  return `${titleOf(batch)}${dtype === "float16" ? " float16" : ""}${fused ? " fused" : ""}`;
}
