/**
 * An AllReduce from any all-gather that a user has.
 *
 * A short description is gathered before the values. It costs a second round, and makes any plain gather safe.
 */

import type { AllReduce, CollectiveOptions, Combine } from "../collectives.ts";
import { CollectiveError } from "../errors.ts";
import { copyContribution, fold } from "./contributions.ts";
import { nameOf } from "./engine.ts";
import { display, messageOf } from "./failures.ts";

/** What a rank says of itself before values travel: [status, length of text, its checksum, its first code units]. */
const TEXT_LENGTH = 510;
const READY = 0;
const FAILED = 1;

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
    options: CollectiveOptions,
  ): Promise<Float64Array> {
    if (broken) throw broken.cause;
    const label = options?.label;
    const name = `call ${call}, allReduce${label === undefined ? "" : ` "${display(label)}"`}`;
    const [own] = await Promise.allSettled([
      local.then((brought) => {
        const values = copyContribution(brought, name);
        return { values, text: `${name} of ${values.length} values with ${nameOf(combine)}` };
      }),
    ]);
    const header = own.status === "fulfilled"
      ? encode(READY, own.value.text)
      : encode(FAILED, `${name}: ${messageOf(own.reason)}`);
    const ranks = (await exchange(header, options)).map(decode);
    const cause = own.status === "rejected" ? own.reason : undefined;
    agree(ranks, cause);
    if (own.status === "rejected") throw cause;
    const all = await exchange(own.value.values, options);
    try {
      return fold(all, combine).slice();
    } catch (cause) {
      const message = `Cannot complete ${name} as combining failed: ${messageOf(cause)}`;
      throw new CollectiveError(message, "rankFailed", [...all.keys()], { cause });
    }
  }

  return (local, combine, options = {}) => {
    const call = ++calls;
    // At once where it can be: the caller may write to its array while earlier calls are under way.
    const values = Promise.resolve(local instanceof Float64Array ? local.slice() : local);
    values.catch(() => {});
    const result = previous.then(() => reduce(call, values, combine, options));
    previous = result.catch(() => {});
    return result;
  };
}

interface Saying {
  readonly status: number;
  readonly text: string;
  /** Differs where texts do, also past what travels of them. */
  readonly mark: string;
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

/** Throws the same error on every rank where one failed or they disagree; `cause` is this rank's own failure. */
function agree(ranks: readonly Saying[], cause: unknown): void {
  const all = [...ranks.keys()];
  const failed = all.filter((rank) => ranks[rank].status === FAILED);
  if (failed.length > 0) {
    const causes = failed.map((rank) => `ank ${rank} failed before ${ranks[rank].text}`);
    throw new CollectiveError(`R${causes.join("; r")}`, "rankFailed", failed, { cause });
  }
  if (ranks.some(({ mark }) => mark !== ranks[0].mark)) {
    const doings = all.map((rank) => `rank ${rank} made ${ranks[rank].text}`).join("; ");
    const message = `Cannot complete the call as the ranks disagree: ${doings}`;
    throw new CollectiveError(message, "disagreement", all);
  }
}

function encode(status: number, text: string): Float64Array {
  const header = new Float64Array(3 + TEXT_LENGTH);
  let checksum = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    checksum = (31 * checksum + code) % 2 ** 40;
    if (i < TEXT_LENGTH) header[3 + i] = code;
  }
  header.set([status, text.length, checksum]);
  return header;
}

function decode([status, length, checksum, ...codes]: Float64Array): Saying {
  const text = String.fromCharCode(...codes.slice(0, length));
  return {
    status,
    text: length > TEXT_LENGTH ? `${text}...` : text,
    mark: `${length} ${checksum} ${text}`,
  };
}
