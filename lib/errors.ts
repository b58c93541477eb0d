/**
 * The two failures that a caller may want to catch and act upon; everything else is a `TypeError` (wrong kind or
 * shape) or a `RangeError` (wrong value) and means that the program must be changed.
 *
 * @module
 */

/**
 * What went wrong in a collective:
 * - `"disagreement"`: the ranks called different things, or what must be equal is not (`assertReplicated`, `joinUneven`:
 *   `ranks` are those that differ); the group stays usable.
 * - `"rankFailed"`: a rank failed before it had anything to contribute (`cause` is its error, where the engine can carry
 *   it), or `combine` threw (all ranks are named), and the group stays usable; or a rank of `runRanks` threw or ended,
 *   and the group is broken.
 * - `"deadline"`: a rank did not arrive in time; the group is broken, every later call rejects with this error.
 * - `"cancelled"`: a rank's `AbortSignal` fired; the group is broken, every later call rejects with this error.
 */
export type CollectiveErrorCode = "disagreement" | "rankFailed" | "deadline" | "cancelled";

/**
 * Says why a collective could not be completed, with the same text, code and ranks on every rank.
 *
 * @example Telling a late rank from a wrong program
 * ```ts
 * import { CollectiveError, runRanks, sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const run = runRanks(2, async ({ rank, allReduce }) => {
 *   if (rank === 1) throw new Error("out of data");
 *   try {
 *     await allReduce(Float64Array.of(1), sum);
 *   } catch (error) {
 *     assert(error instanceof CollectiveError);
 *     assert.deepEqual([error.code, error.ranks], ["rankFailed", [1]]);
 *   }
 * });
 * await assert.rejects(run, /out of data/);
 * ```
 */
export class CollectiveError extends Error {
  /** Always `"CollectiveError"`. */
  override readonly name = "CollectiveError";
  /** What went wrong, for programs. */
  readonly code: CollectiveErrorCode;
  /** The ranks at fault, ascending; all ranks of the group where they called different things. */
  readonly ranks: readonly number[];

  /**
   * Builds the error that every rank of a group rejects with.
   *
   * @param message what was wanted, what came and what to do
   * @param code what went wrong
   * @param ranks the ranks at fault
   * @param options `cause`: the failing rank's own error or the signal's reason
   */
  constructor(
    message: string,
    code: CollectiveErrorCode,
    ranks: readonly number[],
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.ranks = Object.freeze([...ranks]);
  }
}

/**
 * What a device could not do:
 * - `"unsupported"`: it lacks the feature asked for; nothing has changed.
 * - `"outOfMemory"`: there was no room; where a GPU reports it afterwards, the handle is of no use any more.
 * - `"lost"`: the GPU is gone, or the handle was disposed.
 * - `"validation"`, `"internal"`: the GPU refused a launch, or its driver failed; the handle is of no use any more.
 */
export type DeviceErrorCode = "unsupported" | "outOfMemory" | "lost" | "validation" | "internal";

/**
 * Says that a device cannot do what was asked, while another device could.
 *
 * A GPU reports some failures late. They reject at the latest the next awaited call, before it yields a number, and
 * every later one; on a synchronised call they reach all ranks.
 *
 * @example Falling back to float32 on purpose
 * ```ts
 * import { DeviceError, referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const make = (dtype: "float16" | "float32") => tensor(device, [1, 2], [2, 1], { dtype });
 * try {
 *   make("float16");
 * } catch (error) {
 *   if (!(error instanceof DeviceError && error.code === "unsupported")) throw error;
 *   make("float32");
 * }
 * ```
 */
export class DeviceError extends Error {
  /** Always `"DeviceError"`. */
  override readonly name = "DeviceError";
  /** What went wrong, for programs. */
  readonly code: DeviceErrorCode;

  /**
   * Builds the error.
   *
   * @param message what was wanted, what the device has and what to do
   * @param code what went wrong
   * @param options `cause`: the platform's own error
   */
  constructor(message: string, code: DeviceErrorCode, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
