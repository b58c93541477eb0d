/**
 * The two failures that a caller may want to catch and act upon; everything else is a `TypeError` (wrong kind or
 * shape) or a `RangeError` (wrong value) and means that the program must be changed.
 *
 * They are told apart by `name` and `code`: where two bundles, or two versions, of the library meet in one program, each
 * has classes of its own, and `instanceof` knows those of one. {@linkcode isCollectiveError} and {@linkcode isDeviceError}
 * ask for what both have.
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

/**
 * Tells whether an error is a {@linkcode CollectiveError}, also one of another copy of the library.
 *
 * @param error anything that was thrown
 * @param code which one; any by default
 * @returns whether it has that name, a code, and the ranks at fault
 *
 * @example
 * ```ts
 * import { inProcessGroup, isCollectiveError, sum } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const [alone] = inProcessGroup(2, { timeoutMs: 10 });
 * try {
 *   await alone.allReduce(Float64Array.of(1), sum);
 * } catch (error) {
 *   assert(isCollectiveError(error, "deadline") && error.ranks.includes(1));
 * }
 * ```
 */
export function isCollectiveError(
  error: unknown,
  code?: CollectiveErrorCode,
): error is CollectiveError {
  return isNamed(error, "CollectiveError", code) && Array.isArray((error as CollectiveError).ranks);
}

/**
 * Tells whether an error is a {@linkcode DeviceError}, also one of another copy of the library.
 *
 * @param error anything that was thrown
 * @param code which one; any by default
 * @returns whether it has that name and a code
 *
 * @example
 * ```ts
 * import { DeviceError, isDeviceError } from "@syncbn/syncbn";
 *
 * const error: unknown = new DeviceError("Cannot go on as the device must be there", "lost");
 * console.assert(isDeviceError(error) && isDeviceError(error, "lost"));
 * console.assert(!isDeviceError(error, "unsupported") && !isDeviceError(new Error("lost")));
 * ```
 */
export function isDeviceError(error: unknown, code?: DeviceErrorCode): error is DeviceError {
  return isNamed(error, "DeviceError", code);
}

/** Whatever was thrown: it may be no error, or a proxy that refuses to be looked at. */
export function isNamed(error: unknown, name: string, code: string | undefined): boolean {
  try {
    const { name: its, code: itsCode } = Object(error) as Partial<DeviceError>;
    return its === name && typeof itsCode === "string" && (code === undefined || itsCode === code);
  } catch {
    return false;
  }
}
