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
 * @example
 * ```ts
 * import { referenceDevice } from "@syncbn/syncbn";
 * import { fromStateDict, StateDictError } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const stored = { dtype: "F32", shape: [3], data: Float32Array.of(1, 2, 3) } as const;
 * try {
 *   fromStateDict(referenceDevice(), { weight: new Float32Array(2) }, { weight: stored, old: stored });
 * } catch (error) {
 *   assert(error instanceof StateDictError);
 *   assert.deepEqual([error.mismatched, error.unexpected], [["weight"], ["old"]]);
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
