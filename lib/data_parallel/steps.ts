/** Steps that all ranks take together, though some have fewer batches than others. */

import { checkOneOf } from "../check_value.ts";
import { checkGroup, checkOptions, checkSignal, signalIn } from "../check_effects.ts";
import type { CollectiveOptions, ProcessGroup } from "../collectives.ts";
import { CollectiveError } from "../errors.ts";
import { exchange, type Wire } from "../exchange.ts";
import { checkWire } from "../wire.ts";
import { ranksOf, wrongKind } from "../words.ts";

/** One step of {@linkcode joinUneven}. */
export interface JoinedStep<B> {
  /** This rank's batch, or what `emptyBatch` made. */
  readonly batch: B;
  /** Whether this rank has run out, and `batch` is empty. */
  readonly shadow: boolean;
  /** Number of ranks whose batch is their own, >= 1. */
  readonly active: number;
}

/** Options of {@linkcode joinUneven}: what happens when some ranks have run out of batches and others have not. */
export type JoinUnevenOptions<B> =
  & Pick<CollectiveOptions, "signal">
  & (
    | {
      /** All ranks end with the same error; the default. */
      readonly whenOut?: "stop";
    }
    | {
      /** Ranks that have run out go on with empty batches until all have. */
      readonly whenOut: "shadow";
      /** Makes a batch of no examples; called once per step of a rank that has run out, which owns the result. */
      readonly emptyBatch: () => B;
    }
  );

const ACTION = "join the ranks' batches";

/**
 * Yields this rank's batches, in step with all other ranks: each step begins by one collective of one number, by which
 * every rank knows who still has a batch, so that none waits for ever for one that has not.
 *
 * With `whenOut: "shadow"` a rank that has run out takes part with empty batches: to the synchronised functions they
 * count as nothing, `lossScale` gives 0 for them, and the gradients of parameters are zeros. With `"stop"` every rank gets
 * the same error at the end of the shortest; the batch that a longer one had already taken is dropped.
 *
 * Leave the loop on all ranks at the same step, or on none. The source's `return` is called then. Other ranks notice one
 * that left alone at their next collective: at once where the group tells of ranks that ended or call something else,
 * else at its deadline. The wait for a slow source counts towards the deadline too.
 *
 * @param batches this rank's batches; asynchronous ones are awaited one by one. A `worldSize` of 1 adds no collective
 * @param group the ranks
 * @returns the steps, frozen; the same number on every rank
 * @throws (rejects with) CollectiveError, the same on every rank: with code "disagreement" and as `ranks` those that ran
 * out first ("stop"), where the batches of a rank failed (`cause`: what they threw), ranks chose different options, or
 * one did not arrive. After all but the latter the group stays usable. What `emptyBatch` throws is this rank's own error
 *
 * @example Two batches on one rank, one on the other
 * ```ts
 * import { joinUneven, runRanks } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const seen = await runRanks(2, async (group) => {
 *   const options = { whenOut: "shadow", emptyBatch: () => 0 } as const;
 *   const steps: number[] = [];
 *   for await (const { active } of joinUneven(group.rank === 0 ? [1, 2] : [3], group, options)) {
 *     steps.push(active);
 *   }
 *   return steps;
 * });
 * assert.deepEqual(seen, [[2, 1], [2, 1]]);
 * ```
 */
export async function* joinUneven<B>(
  batches: Iterable<B> | AsyncIterable<B>,
  group: Pick<ProcessGroup, "worldSize" | "allGather">,
  options: JoinUnevenOptions<B> = {},
): AsyncGenerator<JoinedStep<B>, void, undefined> {
  const { worldSize } = checkGroup(group, options, ACTION, {
    collective: "allGather",
    name: "the group",
  });
  const source = open(batches, () => checkJoin(options));
  const { whenOut = "stop" } = options ?? {};
  const signal = signalIn(options);
  const gather = async (sending: Wire) =>
    worldSize === 1
      ? [await sending]
      : await group.allGather(sending, { label: `joinUneven ${whenOut}`, signal });
  try {
    for (let step = 0;; step++) {
      const { next, having } = await ask(source, gather);
      const active = having.filter((has) => has).length;
      if (active === 0) return;
      if (active < worldSize && options.whenOut !== "shadow") throw ranOut(step, having);
      const batch = next ? next.value : checkJoin(options).emptyBatch();
      yield Object.freeze({ batch, shadow: next === null, active });
    }
  } catch (error) {
    await source.close().catch(() => {}); // The error says more than a failure to close could.
    throw error;
  } finally {
    await source.close();
  }
}

interface Source<B> {
  /** Takes the next one; null once there is none. */
  readonly next: () => Promise<{ readonly value: B } | null>;
  /** Ends the iterator unless it has ended. */
  readonly close: () => Promise<void>;
}

/** Opens batches; what cannot be opened fails where the first one is taken. */
function open<B>(batches: Iterable<B> | AsyncIterable<B>, check: () => unknown): Source<B> {
  let state: "unopened" | "ready" | "pending" | "over" = "unopened";
  let iterator: Iterator<B> | AsyncIterator<B> | undefined;
  return {
    next: async () => {
      if (state === "over") return null;
      try {
        check();
        iterator ??= iteratorOf(batches);
        state = "pending";
        const { done, value } = await iterator.next();
        // Closed meanwhile, it stays so.
        if (state === "pending") state = done ? "over" : "ready";
        return done ? null : { value };
      } catch (error) {
        state = "over";
        throw error;
      }
    },
    close: async () => {
      const before = state;
      state = "over";
      if (before === "ready") await iterator?.return?.();
      // A source that is still at work ends when it gets there; nobody waits for it.
      if (before === "pending") (async () => await iterator?.return?.())().catch(() => {});
    },
  };
}

function iteratorOf<B>(batches: Iterable<B> | AsyncIterable<B>): Iterator<B> | AsyncIterator<B> {
  const { [Symbol.asyncIterator]: later, [Symbol.iterator]: now } = Object(batches) as
    & Partial<AsyncIterable<B>>
    & Partial<Iterable<B>>;
  if (typeof later === "function") return later.call(batches);
  if (typeof now === "function") return now.call(batches);
  throw wrongKind(ACTION, "they must be an iterable or an async iterable", batches);
}

/** Asks for this rank's next batch, or null, and which ranks have one. */
async function ask<B>(
  source: Source<B>,
  gather: (sending: Wire) => Promise<readonly Float64Array[]>,
) {
  const { total: all, launched } = await exchange(() => {
    const next = source.next();
    return { next, wire: next.then((taken) => Float64Array.of(taken === null ? 0 : 1)) };
  }, gather);
  for (const own of all) checkWire(own, 1, ACTION);
  return { next: await launched.next, having: all.map(([has]) => has === 1) };
}

function ranOut(steps: number, having: readonly boolean[]): CollectiveError {
  const ranks = (has: boolean) => [...having.keys()].filter((rank) => having[rank] === has);
  const [out, left] = [ranks(false), ranks(true)].map(ranksOf);
  return new CollectiveError(
    `Cannot go on after step ${steps} as every rank must have as many batches: ${out} ran out, ` +
      `${left} did not; whenOut "shadow" goes on with empty batches`,
    "disagreement",
    ranks(false),
  );
}

/** Checks the options; what makes empty batches is there where it is needed. */
function checkJoin<B>(options: JoinUnevenOptions<B>): { readonly emptyBatch: () => B } {
  checkOptions(options, ["whenOut", "emptyBatch", "signal"], ACTION);
  checkSignal(options.signal, ACTION);
  const { whenOut = "stop" } = options;
  checkOneOf(whenOut, ["stop", "shadow"], "whenOut", ACTION);
  const emptyBatch = options.whenOut === "shadow" ? options.emptyBatch : () => {};
  if (typeof emptyBatch === "function") return { emptyBatch: emptyBatch as () => B };
  const wanted = 'whenOut "shadow" needs options.emptyBatch, a function that makes an empty batch';
  throw wrongKind(ACTION, wanted, emptyBatch);
}
