/**
 * What the examples show, in a few lines.
 *
 * @module
 */

import { runRanks } from "../../mod.ts";
import { train } from "./convert.ts";
import type { Shown } from "./groups.ts";
import type { Seen } from "./look.ts";
import { countsOf, STEPS } from "./both.ts";

/** What is shown, and whether it is as it must be. */
export interface Report {
  /** Text without a line's end. */
  readonly text: string;
  /** Whether the ranks have learnt what fewer processes learn. */
  readonly holds: boolean;
}

/** Each step rounds numbers and gradients to float32, and they are of order 1: one unit of its last place per step. */
export const LARGEST_DIFFERENCE = STEPS * 2 ** -23;

/**
 * Compares what the ranks have learnt with what fewer processes learn, which hold the same rows.
 *
 * @param shown what the ranks have seen
 * @param shape of the first example's input on each rank
 * @returns the report
 */
export async function report({ called, ranks }: Shown, shape: readonly number[]): Promise<Report> {
  const counts = countsOf(ranks.length);
  const middle = Math.ceil(ranks.length / 2);
  const halves = [ranks.slice(0, middle), ranks.slice(middle)];
  const rows = (from: number, to?: number) => counts.slice(from, to).reduce((a, b) => a + b, 0);
  const [one] = await learnt([rows(0)]);
  const two = await learnt([rows(0, middle), rows(middle)]);
  const asOne = Math.max(...ranks.map(({ world }) => difference(world, one)));
  const asTwo = Math.max(
    ...halves.flatMap((half, i) => half.map((rank) => difference(rank.half, two[i]))),
  );
  const text = `\
PyTorch's page of SyncBatchNorm on ${called}.

Two layers, an input of shape (${shape.join(", ")}) on each rank:
  over all ranks          ${inWords(ranks[0].layers.all)}
  over their first half   ${inWords(halves[0][0].layers.half)}
  over their second half  ${inWords(halves[1][0].layers.half)}

Linear(20, 100) and BatchNorm1d(100), converted, ${STEPS} steps on ${counts.join(", ")} rows:
  over all ranks          what one process learns, to ${brief(asOne)}
  over halves             what two processes learn, with a batch norm each, to ${brief(asTwo)}`;
  return { text, holds: asOne <= LARGEST_DIFFERENCE && asTwo <= LARGEST_DIFFERENCE };
}

/**
 * Trains one or two processes whose batch norms keep to themselves.
 *
 * @param counts number of rows of each
 * @returns all numbers of their models afterwards
 */
export function learnt(counts: readonly number[]): Promise<number[][]> {
  const training = { processGroup: "half", counts, steps: STEPS } as const;
  return runRanks(counts.length, (world) => train(world, training));
}

function inWords({ mean, variance, runningMean }: Seen): string {
  const farthest = (values: readonly number[], from: number) =>
    brief(Math.max(...values.map((value) => Math.abs(value - from))));
  return `mean 0 to ${farthest(mean, 0)}, variance 1 to ${farthest(variance, 1)}, ` +
    `running mean ${brief(runningMean[0])}, ...`;
}

function difference(a: readonly number[], b: readonly number[]): number {
  return Math.max(...a.map((value, i) => Math.abs(value - b[i])));
}

function brief(value: number): string {
  return value.toExponential(1);
}
