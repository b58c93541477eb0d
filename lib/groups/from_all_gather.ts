/**
 * An AllReduce from any all-gather that a user has.
 *
 * @module
 */

import type { AllReduce, CollectiveOptions, Combine } from "../collectives.ts";
import { CollectiveError } from "../errors.ts";

/** What a rank says of itself before values are exchanged: [status, length of text, text as UTF-16 code units]. */
const TEXT = 510;
const READY = 0;
const FAILED = 1;

/**
 * Makes an {@linkcode AllReduce} of an all-gather: values travel to every rank, and every rank folds them in rank order.
 *
 * Before the values a short fixed-size description is gathered, so that ranks which disagree, or of which one failed,
 * all get the same CollectiveError and stay in step. Calls go out one at a time in program order, whatever order their
 * local values become ready in. A gather that itself rejects, or a signal, breaks the reduction for good: the ranks may
 * be out of step, so every later call rejects with the same error. Deadlines are the gather's business.
 *
 * @param allGather gives every rank the arrays of all ranks in rank order; all of one length in one call. It may
 * honour `signal`
 * @returns the reduction; O(worldSize * length) per rank
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
  let broken: CollectiveError | undefined;
  let calls = 0;

  const breakDown = (message: string, code: "cancelled" | "rankFailed", cause: unknown) =>
    broken ??= new CollectiveError(message, code, [], { cause });

  /** One gather, raced with the signal; whatever goes wrong in it is final. */
  async function exchange(
    local: Float64Array,
    name: string,
    options: CollectiveOptions,
  ): Promise<readonly Float64Array[]> {
    const { signal } = options;
    let stop: (() => void) | undefined;
    const cancelled = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener("abort", stop, { once: true });
    });
    try {
      signal?.throwIfAborted();
      return await Promise.race([allGather(local, options), cancelled]);
    } catch (cause) {
      throw signal?.aborted
        ? breakDown(
          `Cannot complete ${name} as it was cancelled: ${textOf(cause)}`,
          "cancelled",
          cause,
        )
        : breakDown(
          `Cannot complete ${name} as its gather failed: ${textOf(cause)}`,
          "rankFailed",
          cause,
        );
    } finally {
      if (stop) signal?.removeEventListener("abort", stop);
    }
  }

  async function reduce(
    call: number,
    local: Promise<Float64Array>,
    combine: Combine,
    options: CollectiveOptions,
  ): Promise<Float64Array> {
    if (broken) throw broken;
    const name = `call ${call}, allReduce${
      options.label === undefined ? "" : ` "${options.label}"`
    }`;
    const [own] = await Promise.allSettled([local]);
    const header = own.status === "fulfilled"
      ? encode(READY, `${name} of ${own.value.length} values with ${combine.name}`)
      : encode(FAILED, `${name}: ${textOf(own.reason)}`);
    const ranks = (await exchange(header, name, options)).map(decode);
    const failed = [...ranks.keys()].filter((rank) => ranks[rank].status === FAILED);
    if (failed.length > 0) {
      const causes = failed.map((rank) => `rank ${rank} failed before ${ranks[rank].text}`);
      const text = causes.join("; ").replace(/^r/, "R");
      const cause = own.status === "rejected" ? own.reason : undefined;
      throw new CollectiveError(text, "rankFailed", failed, { cause });
    }
    if (own.status === "rejected" || ranks.some(({ text }) => text !== ranks[0].text)) {
      const doings = ranks.map(({ text }, rank) => `rank ${rank} made ${text}`).join("; ");
      throw new CollectiveError(
        `Cannot complete the call as the ranks disagree: ${doings}`,
        "disagreement",
        [...ranks.keys()],
      );
    }
    const all = await exchange(own.value, name, options);
    return all.reduce((a, b) => combine(a, b)).slice();
  }

  return (local, combine, options = {}) => {
    const call = ++calls;
    // A snapshot: the caller may reuse the array while earlier calls are under way.
    const values = local instanceof Float64Array ? Promise.resolve(local.slice()) : local;
    values.catch(() => {});
    const result = previous.then(() => reduce(call, values, combine, options));
    previous = result.catch(() => {});
    return result;
  };
}

function encode(status: number, text: string): Float64Array {
  const header = new Float64Array(2 + TEXT);
  const known = text.slice(0, TEXT);
  header.set([status, known.length]);
  for (let i = 0; i < known.length; i++) header[2 + i] = known.charCodeAt(i);
  return header;
}

function decode(header: Float64Array): { readonly status: number; readonly text: string } {
  const [status, length] = header;
  return { status, text: String.fromCharCode(...header.subarray(2, 2 + length)) };
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
