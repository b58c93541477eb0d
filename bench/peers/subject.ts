/** Who is measured, and what they are asked for. */

import { type BatchShape, extentsOf, type Numbers } from "../batches.ts";
import type { Results } from "../errors.ts";
import { elapsed } from "../measure.ts";
import type { Packages } from "./packages.ts";

/** What is timed: forward (y), forward and backward (y, dx, dweight, dbias), and a plain copy of as many elements. */
export type Work = "forward" | "both" | "copy";

/** Passes over the tensor that each takes if nothing stays in cache. */
export const PASSES = { forward: 3, both: 8, copy: 2 } as const;

/** Whose a figure is: a way to compute and its number of threads, 0 where it has several; together they are unique. */
export interface Whose {
  readonly name: string;
  readonly threads: number;
}

/** One way to compute, with a number of threads, on a batch that is in place. */
export interface Contender extends Whose {
  readonly works: readonly Work[];
  /** Does the work so many times in a row; returns milliseconds for all. */
  readonly time: (work: Work, calls: number) => Promise<number>;
  /** Does it once; left out where there is nothing to be right or wrong. */
  readonly results?: () => Promise<Required<Results>>;
}

export interface Absent extends Whose {
  readonly missing: string;
}

/** Contenders that share one copy of a batch; to dispose it frees the batch. */
export interface Opened extends AsyncDisposable {
  readonly contenders: readonly Contender[];
}

/** Somebody who computes: a library, a program, ourselves. */
export interface Subject extends Whose, AsyncDisposable {
  readonly version: string;
  /** Puts a batch in place; rejects where that cannot be, such as for lack of memory. */
  readonly open: (shape: BatchShape, numbers: Numbers) => Promise<Opened>;
}

export type Candidate = Subject | Absent;

/**
 * The shape that a library without memory formats is given: (N, C, inner), or channels last (N * inner, C), which is the
 * same memory; and the axes that are reduced.
 */
export function plainLayout(shape: BatchShape): {
  readonly dims: readonly number[];
  readonly axes: readonly number[];
  readonly vector: readonly number[];
} {
  const { samples, channels, inner } = extentsOf(shape);
  if (shape.format === "channelsLast" || inner === 1) {
    return { dims: [samples * inner, channels], axes: [0], vector: [1, channels] };
  }
  return { dims: [samples, channels, inner], axes: [0, 2], vector: [1, channels, 1] };
}

export interface Calls {
  /** Launch their work, and free what it gives. */
  readonly forward: () => unknown;
  readonly both: () => unknown;
  /** Waits for everything launched; left out where a call returns when, or promises that, its work is done. */
  readonly settle?: () => Promise<unknown>;
  readonly results: () => Promise<Required<Results>>;
  readonly dispose: () => unknown;
}

export interface Library extends Whose {
  readonly version: string;
  readonly open: (shape: BatchShape, numbers: Numbers) => Calls | Promise<Calls>;
}

/** Starts a library from npm, or says why it cannot be. */
export async function startLibrary(
  packages: Packages,
  who: Whose,
  start: () => Promise<Pick<Library, "version" | "open">>,
): Promise<Library | Absent> {
  try {
    return { ...who, ...await start() };
  } catch (error) {
    return { ...who, missing: packages.reason(error) };
  }
}

/** Makes a subject of a library: every call is waited for. */
export function inProcess({ name, threads, version, open }: Library): Subject {
  return {
    ...{ name, threads, version },
    open: async (shape, numbers) => {
      const calls = await open(shape, numbers);
      const time = (work: Work, count: number) => {
        const call = calls[work as "forward" | "both"];
        const waited = async () => (call(), await calls.settle?.());
        return elapsed({ run: calls.settle ? waited : call }, count);
      };
      return {
        contenders: [{ name, threads, works: ["forward", "both"], time, results: calls.results }],
        [Symbol.asyncDispose]: async () => void await calls.dispose(),
      };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
