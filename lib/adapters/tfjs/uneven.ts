/**
 * Ranks that have other numbers of batches than others: found out before anybody waits, and where it is wanted, ranks that
 * have run out go on with rows that do not count.
 *
 * @module
 */

import { CollectiveError } from "../../errors.ts";
import { sum } from "../../moments.ts";
import { reduced, tell } from "./reduce.ts";
import type { Dataset } from "./model.ts";
import type { ReplicaGroup } from "./weights.ts";

/**
 * What happens when some ranks have run out of batches and others have not, as of `joinUneven`: all end with one error, or
 * those that have run out go on with rows that do not count.
 */
export type WhenOut = "stop" | "shadow";

/** A number of every rank, in rank order. */
export function gathered(
  { rank, worldSize, ...group }: ReplicaGroup,
  value: number,
  label: string,
): readonly number[] {
  const local = new Float64Array(worldSize);
  local[rank] = value;
  return [...reduced({ worldSize, ...group }, () => local, sum, label)];
}

/** Checks, unless ranks may stand in, that all have as many batches; the larger numbers are the longer ranks'. */
export function checkEven(batches: readonly number[], whenOut: WhenOut): void {
  const most = Math.max(...batches);
  const short = [...batches.keys()].filter((rank) => batches[rank] < most);
  if (short.length === 0 || whenOut === "shadow") return;
  const list = (ranks: readonly number[]) =>
    `${ranks.length === 1 ? "rank" : "ranks"} ${ranks.join(", ")}`;
  throw new CollectiveError(
    `Cannot fit the model as every rank must have as many batches: ${list(short)} ran out, ${
      list([...batches.keys()].filter((rank) => batches[rank] === most))
    } did not; replicate(tf, model, group, { whenOut: "shadow" }) goes on with rows that do not count`,
    "disagreement",
    short,
  );
}

/** A batch of a data set. */
interface Taken {
  readonly value: { readonly xs: unknown; readonly ys: unknown } | null;
  readonly done: boolean;
}

/**
 * A data set whose iterators are in step with those of all other ranks: before each batch every rank learns who still has
 * one. `standIn` makes a batch whose rows do not count.
 */
export function joined(
  dataset: Dataset,
  group: ReplicaGroup,
  whenOut: WhenOut,
  standIn: () => NonNullable<Taken["value"]>,
): Dataset {
  const label = `tfjs next batch ${whenOut}`;
  const next = async (source: { next(): Promise<unknown> }): Promise<Taken> => {
    let taken: Taken;
    try {
      taken = await source.next() as Taken;
    } catch (error) {
      tell(group, error, label);
    }
    const has = taken.value !== null && taken.value !== undefined;
    const having = gathered(group, has ? 1 : 0, label);
    if (having.every((one) => one === 0)) return { value: null, done: true };
    checkEven(having, whenOut);
    if (has) return { value: taken.value, done: false };
    try {
      return { value: standIn(), done: false };
    } catch (error) {
      tell(group, error, label);
    }
  };
  return {
    size: dataset.size,
    iterator: async () => {
      const source = await dataset.iterator();
      return { next: () => next(source) };
    },
  };
}
