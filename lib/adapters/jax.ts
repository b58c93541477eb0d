/**
 * syncbn in jax-js: batch norm over all replicas as a link between two segments of `vjp`, and sums of gradients over them.
 *
 * jax-js comes as an argument: nothing here imports it. docs/jax.md leads from a model to its training on four workers.
 *
 * @module
 */

export type { Jax, JaxArray, JaxDevice } from "./jax/framework.ts";
export {
  type Linked,
  type SyncBatchNorm,
  syncBatchNorm,
  type SyncBatchNormOptions,
} from "./jax/norm.ts";
export type { Pullback, Ways } from "./jax/ways.ts";
export { psum } from "./jax/sums.ts";
