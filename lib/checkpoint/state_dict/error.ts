/** What a caller of `fromStateDict` may want to catch: a checkpoint that is fine in itself, and of another model. */

/** The names that a state dict and a model do not have in common, or not alike. */
export interface StateDictDifferences {
  /** Names that the model wants and the state dict lacks. */
  readonly missing: readonly string[];
  /** Names of the state dict that the model has not. */
  readonly unexpected: readonly string[];
  /** Names that both have, with another shape or a value that does not belong. */
  readonly mismatched: readonly string[];
}

/**
 * Says how a state dict and a model differ; nothing was loaded. The message shows up to 50 names of each kind, the fields
 * have all.
 *
 * @example Telling another model's checkpoint from a wrong program
 * ```ts
 * import { initLayer, referenceDevice } from "@syncbn/syncbn";
 * import { fromStateDict, StateDictError } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const model = { norm: initLayer(device, "batchNorm1d", 2, { trackRunningStats: false }) };
 * const weight = { dtype: "F32", shape: [3], data: Float32Array.of(1, 2, 3) } as const;
 * try {
 *   fromStateDict(device, model, { "norm.weight": weight, "bn.bias": weight });
 * } catch (error) {
 *   assert(error instanceof StateDictError);
 *   assert.deepEqual(error.missing, ["norm.bias"]);
 *   assert.deepEqual(error.unexpected, ["bn.bias"]);
 *   assert.deepEqual(error.mismatched, ["norm.weight"]);
 *   assert.match(error.message, /"norm\.weight" of shape \(3\) instead of \(2\)/);
 * }
 * ```
 */
export class StateDictError extends Error implements StateDictDifferences {
  /** Always `"StateDictError"`. */
  override readonly name = "StateDictError";
  /** Names that the model wants and the state dict lacks, in the model's order; empty where `strict` is false. */
  readonly missing: readonly string[];
  /** Names of the state dict that the model has not, in the dict's order; empty where `strict` is false. */
  readonly unexpected: readonly string[];
  /** Names that both have, with another shape or a value that does not belong, in the model's order. */
  readonly mismatched: readonly string[];

  /**
   * Builds the error.
   *
   * @param message what was wanted and what came
   * @param differences the names at fault
   * @param options `cause`, where there is one
   */
  constructor(message: string, differences: StateDictDifferences, options?: ErrorOptions) {
    super(message, options);
    this.missing = Object.freeze([...differences.missing]);
    this.unexpected = Object.freeze([...differences.unexpected]);
    this.mismatched = Object.freeze([...differences.mismatched]);
  }
}
