/**
 * Synchronised batch norm in TensorFlow.js, and training of its models over several replicas: workers, or MPI processes.
 *
 * {@linkcode convertSyncBatchNorm} makes a copy of a model whose batch norms are synchronised, {@linkcode replicate} lets
 * its own `fit` train over all ranks, {@linkcode broadcastWeights} makes replicas equal and {@linkcode shareOf} hands out
 * rows. {@linkcode syncBatchNorm} is one batch norm by itself, in a model of operations.
 *
 * TensorFlow.js comes as an argument; the library does not depend on it.
 *
 * @module
 */

export {
  type NormParameters,
  syncBatchNorm,
  type SyncNorm,
  type SyncNormOptions,
} from "./tfjs/norm.ts";
export type { ReadableArray } from "./tfjs/device_kernels.ts";
export { type ConvertOptions, convertSyncBatchNorm, revertSyncBatchNorm } from "./tfjs/convert.ts";
export {
  createTrainer,
  type Trainer,
  type TrainerData,
  type TrainerGroup,
  type TrainerOptions,
  type TrainerStep,
} from "./tfjs/trainer.ts";
export { replicate, type ReplicateOptions } from "./tfjs/replicate.ts";
export type { WhenOut } from "./tfjs/uneven.ts";
export {
  broadcastWeights,
  type BroadcastWeightsOptions,
  type ReplicaGroup,
} from "./tfjs/weights.ts";
export { shareOf, type Sliceable } from "./tfjs/share.ts";
export type { Operation, TensorFlowLike, TfModel, TfTensor } from "./tfjs/framework.ts";
