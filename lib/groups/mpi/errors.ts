/** What can go wrong with MPI itself, as opposed to a collective. */

import { isNamed } from "../../errors.ts";

/**
 * What MPI could not do:
 * - `"unsupported"`: this is not Deno, whose foreign function interface it takes; workers may do.
 * - `"permission"`: Deno was started without a permission that MPI needs; the message names the flag.
 * - `"library"`: no MPI library was found, or what was found is none; the message names the packages.
 * - `"launcher"`: the ranks were started by the launcher of another MPI than the one that was loaded.
 * - `"call"`: an MPI function failed, or was asked for when MPI cannot run: twice in a process, after its end, in a worker.
 */
export type MpiErrorCode = "unsupported" | "permission" | "library" | "launcher" | "call";

/** Says that MPI cannot be used here, or that one of its functions failed; another kind of group still may work. */
export class MpiError extends Error {
  /** Always `"MpiError"`. */
  override readonly name = "MpiError";
  /** What went wrong, for programs. */
  readonly code: MpiErrorCode;

  /**
   * Builds the error.
   *
   * @param message what was wanted, what came and what to do
   * @param code what went wrong
   * @param options `cause`: the platform's own error
   */
  constructor(message: string, code: MpiErrorCode, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Tells whether an error is an {@linkcode MpiError}, also one of another copy of the library, whose class is another.
 *
 * @param error anything that was thrown
 * @param code which one; any by default
 * @returns whether it has that name and a code
 */
export function isMpiError(error: unknown, code?: MpiErrorCode): error is MpiError {
  return isNamed(error, "MpiError", code);
}
