/** What ranks bring to a collective: how it is checked, folded, and handed out. Shared by all engines. */

import type { Combine } from "../collectives.ts";
import { combineMoments, combineMomentsInto, sum } from "../moments.ts";
import { display } from "./failures.ts";
import type { LocalFlow } from "./flow.ts";

/** Checks that a rank's contribution is what collectives carry. */
export function checkContribution(values: Float64Array, name: string): Float64Array {
  if (values instanceof Float64Array) return values;
  throw new TypeError(
    `Cannot call ${name} as its values must be a Float64Array: current value is ${display(values)}`,
  );
}

/** Checks a rank's contribution and copies it, so that the rank may go on writing to its own. */
export function copyContribution(values: Float64Array, name: string): Float64Array<ArrayBuffer> {
  return checkContribution(values, name).slice() as Float64Array<ArrayBuffer>; // Never of shared memory.
}

/** Folds the contributions of all ranks in rank order. */
export function fold(all: readonly Float64Array[], combine: Combine): Float64Array {
  return checkTotal(all.reduce((a, b) => combine(a, b)), all[0].length, combine);
}

/** Folds values in rank order into memory that is there already. */
export function foldInto(
  total: Float64Array,
  all: readonly Float64Array[],
  combine: Combine,
): void {
  if (!foldsAlike(combine)) return total.set(fold(all, combine));
  // The same operations in the same order, without an array for each.
  const into = combine === combineMoments ? combineMomentsInto : sumInto;
  const [first, second, ...others] = all;
  if (!second) return total.set(first);
  into(first, second, total);
  for (const values of others) into(total, values, total);
}

/** In four places at once: what another core wrote comes faster from several than from one after the other. */
function sumInto(a: Float64Array, b: Float64Array, total: Float64Array): void {
  const { length } = total;
  const quarter = length >> 2;
  for (let i = 0; i < quarter; i++) {
    const [j, k, l] = [i + quarter, i + 2 * quarter, i + 3 * quarter];
    total[i] = a[i] + b[i];
    total[j] = a[j] + b[j];
    total[k] = a[k] + b[k];
    total[l] = a[l] + b[l];
  }
  for (let i = 4 * quarter; i < length; i++) total[i] = a[i] + b[i];
}

/** Whether a function is one of our own, which gives the same bits, or the same error, on whichever rank it is called. */
export function foldsAlike(combine: Combine): boolean {
  return combine === sum || combine === combineMoments;
}

/** Checks what `combine` has returned. */
export function checkTotal(total: Float64Array, length: number, combine: Combine): Float64Array {
  if (total instanceof Float64Array && total.length === length) return total;
  throw new TypeError(
    `Cannot combine the values as ${
      combine.name || "the function"
    } must return a Float64Array of ` +
      `${length} values: current value is ${display(total)}`,
  );
}

/** Cuts an array into as many parts as there are ranks. */
export function shareOf(
  length: number,
  rank: number,
  worldSize: number,
): readonly [number, number] {
  return [Math.floor(rank * length / worldSize), Math.floor((rank + 1) * length / worldSize)];
}

/** Hands out what all ranks brought. */
export function conclude(
  flow: LocalFlow,
  all: readonly Float64Array[],
): (rank: number) => readonly Float64Array[] {
  switch (flow.kind) {
    case "reduce": {
      const total = fold(all, flow.combine);
      return () => [total.slice()];
    }
    case "gather":
      return () => all.map((own) => own.slice());
    case "broadcast":
      return () => [all[flow.root].slice()];
    case "barrier":
      return () => [];
    case "scatter":
      return (rank) => all.map((own) => own.slice(...shareOf(own.length, rank, all.length)));
    case "send":
      return (rank) => (rank === flow.to ? [all[flow.from].slice()] : []);
  }
}
