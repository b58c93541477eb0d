/**
 * An AllReduce from any all-gather that a user has.
 *
 * A short description is gathered before the values. It costs a second round, and makes any plain gather safe.
 */

import { checkFunction } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { AllReduce, CollectiveOptions, Combine, ReduceOptions } from "../collectives.ts";
import { copyContribution, fold } from "./contributions.ts";
import { nameOf, placed } from "./engine.ts";
import { combineError, display, judge, messageOf } from "./failures.ts";
import { decodeSaying, encodeSaying, hashOf, unseenError } from "./sayings.ts";

/** How many bytes a rank may say before values travel, each as a number behind the hash of its text. */
const SAYING_BYTES = 512;

/**
 * Makes an {@linkcode AllReduce} of an all-gather: values travel to every rank, and every rank folds them in rank order.
 *
 * Before the values a short description of fixed size is gathered, so that ranks which disagree, or of which one failed,
 * all get the same CollectiveError and stay in step. Calls go out one at a time in program order, whatever order their
 * local values become ready in. Deadlines and signals are the gather's business: once it rejects, the ranks may be out
 * of step, and every later call rejects with the same error.
 *
 * @param allGather gives every rank the arrays of all ranks in rank order; all of one length in one call. It must be
 * this reduction's alone: other calls between its own would put the ranks out of step
 * @returns the reduction; it moves worldSize * length numbers to every rank. It rejects with CollectiveError where ranks
 * failed or disagree (`cause`: on the failing rank its own error), and with what the gather rejects with
 *
 * @example Around another library's gather, here the in-process group's
 * ```ts
 * import { fromAllGather, runRanks, sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const totals = await runRanks(2, async ({ allGather }) => {
 *   const allReduce = fromAllGather(allGather);
 *   return [...await allReduce(Float64Array.of(1, 2), sum)];
 * });
 * assert.deepEqual(totals, [[2, 4], [2, 4]]);
 * ```
 */
export function fromAllGather(
  allGather: (
    local: Float64Array,
    options?: CollectiveOptions,
  ) => Promise<readonly Float64Array[]>,
): AllReduce {
  checkFunction(allGather, "allGather", "reduce");
  let previous: Promise<unknown> = Promise.resolve();
  let broken: { readonly cause: unknown } | undefined;
  let calls = 0;

  async function exchange(local: Float64Array, options: CollectiveOptions) {
    try {
      return checkGathered(await allGather(local, options), local.length);
    } catch (cause) {
      broken = { cause };
      throw cause;
    }
  }

  async function reduce(
    call: number,
    local: Promise<Float64Array>,
    combine: Combine,
    given: ReduceOptions,
  ): Promise<Float64Array> {
    if (broken) throw broken.cause;
    const { inPlace, ...options } = given;
    const { label } = options;
    const name = label === undefined ? "allReduce" : `allReduce "${display(label)}"`;
    const [own] = await Promise.allSettled([
      local.then((values) => {
        checkOneOf(inPlace, SWITCH, "inPlace", "reduce");
        return copyContribution(values, name);
      }),
    ]);
    const text = own.status === "fulfilled"
      ? `${name} of ${own.value.length} values with ${nameOf(combine)}, its call ${call}`
      : `${name}: ${messageOf(own.reason)}`;
    const header = new Uint8Array(SAYING_BYTES);
    encodeSaying(header, { failed: own.status === "rejected", text });
    const headers = await exchange(Float64Array.of(...hashOf(text), ...header), options);
    const sayings = headers.map((numbers) => decodeSaying(Uint8Array.from(numbers.slice(2))));
    const cause = own.status === "rejected" ? own.reason : undefined;
    const error = judge(call, sayings, cause);
    if (error) throw error;
    const [[high, low]] = headers;
    if (headers.some(([a, b]) => a !== high || b !== low)) throw unseenError(call, sayings);
    // A gather that hides this rank's failure is not believed.
    if (own.status === "rejected") throw cause;
    const all = await exchange(own.value, options);
    try {
      return fold(all, combine).slice();
    } catch (cause) {
      throw combineError(call, name, all.length, messageOf(cause), cause);
    }
  }

  return async (local, combine, options = {}) => {
    const call = ++calls;
    // At once where it can be: the caller may write to its array while earlier calls are under way.
    const values = Promise.resolve(local instanceof Float64Array ? local.slice() : local);
    values.catch(() => {});
    const result = previous.then(() => reduce(call, values, combine, options));
    previous = result.catch(() => {});
    const total = await result;
    return options.inPlace ? placed(total, await local) : total;
  };
}

function checkGathered(all: readonly Float64Array[], length: number): readonly Float64Array[] {
  if (Array.isArray(all) && all.length > 0 && all.every((own) => own?.length === length)) {
    return all;
  }
  throw new TypeError(
    `Cannot reduce as the gather must resolve to one Float64Array of ${length} values per rank: ` +
      `current value is ${Array.isArray(all) ? `${all.length} arrays` : all}`,
  );
}
