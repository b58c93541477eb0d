/**
 * What a caller of the checkpoint functions may want to catch: files come from elsewhere, and no change of the program
 * mends one.
 */

/**
 * What is wrong with a safetensors file:
 * - `"malformed"`: it breaks the format, or is cut off.
 * - `"unsupported"`: a tensor's dtype is none that the format knew when this was written; the rest may be fine.
 */
export type SafetensorsErrorCode = "malformed" | "unsupported";

/**
 * Says why a file could not be read as safetensors, and where in the file that was found.
 *
 * @example
 * ```ts
 * import { readSafetensors, SafetensorsError } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * try {
 *   readSafetensors(new Uint8Array(4));
 * } catch (error) {
 *   assert(error instanceof SafetensorsError);
 *   assert.deepEqual([error.code, error.byte], ["malformed", 4]);
 * }
 * ```
 */
export class SafetensorsError extends Error {
  /** Always `"SafetensorsError"`. */
  override readonly name = "SafetensorsError";
  /** What went wrong, for programs. */
  readonly code: SafetensorsErrorCode;
  /** Where it was found, in bytes from the start of the file; the file's length where it is cut off. */
  readonly byte: number;

  /**
   * Builds the error.
   *
   * @param message what was wanted, what came and where
   * @param code what went wrong
   * @param byte where it was found, in bytes from the start of the file
   */
  constructor(message: string, code: SafetensorsErrorCode, byte: number) {
    super(message);
    this.code = code;
    this.byte = byte;
  }
}
