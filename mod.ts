/**
 * Synchronized batch normalization as pure functions: when a model trains on several replicas, the statistics are taken
 * over all of them, exactly, so that *k replicas equal one*.
 *
 * The library in seven steps:
 * 1. A {@linkcode Device} computes: {@linkcode referenceDevice} here, a GPU from the entry point `./webgpu`.
 *    {@linkcode tensor} puts numbers onto it, {@linkcode toArray} reads them back. Whoever writes one finds the interface in
 *    `./device-author`.
 * 2. {@linkcode initBatchNorm} makes an immutable {@linkcode BatchNormState}: weight, bias, running statistics.
 * 3. A {@linkcode ProcessGroup} connects the replicas: {@linkcode runRanks} and {@linkcode inProcessGroup} here, threads
 *    from the entry point `./workers`, processes from `./mpi`, or any function that reduces an array over them.
 * 4. {@linkcode syncBatchNormForward} and {@linkcode syncBatchNormBackward} train over a group;
 *    {@linkcode batchNormForward} and {@linkcode batchNormBackward} without one; {@linkcode batchNormInfer} evaluates.
 *    Forward takes a state and returns a new one. {@linkcode syncBatchNormForwardAll} and
 *    {@linkcode syncBatchNormBackwardAll} do several that are ready together, in one collective; functions that end in
 *    `Blocking` hold up a thread instead of awaiting. What forward is made of is there too: {@linkcode batchMoments},
 *    {@linkcode mergeMoments}, {@linkcode allReduceMoments}, {@linkcode normalizeWith}, {@linkcode updateRunningStats};
 *    {@linkcode batchNormForwardParts} takes one batch in several tensors, {@linkcode batchNormForwardGhost} groups of a
 *    batch by themselves; {@linkcode batchRenormForward} corrects towards running statistics, and {@linkcode modulate}
 *    scales each sample. {@linkcode batchNormJvp},
 *    {@linkcode batchNormBackwardBackward} and {@linkcode batchNormBackwardMoments}, alone and over a group, are second order
 *    and losses on statistics.
 * 5. {@linkcode allReduceGradients}, {@linkcode exactSums}, {@linkcode lossScale}, {@linkcode joinUneven}, {@linkcode broadcastState} and
 *    {@linkcode assertReplicated} keep the rest of a model equal on all replicas.
 * 6. {@linkcode withParameters}, {@linkcode addScaled} and {@linkcode mapArrays} are an optimiser's step, and averages of
 *    models; {@linkcode allFinite} tells whether a step may be kept; {@linkcode region}, {@linkcode batch} and
 *    {@linkcode release} say what lives how long on the device, and `donate` in the options of evaluation and backward
 *    that an array may be written over.
 * 7. In a model, a batch norm is a plain record too: {@linkcode initLayer} makes one, {@linkcode applyLayer},
 *    {@linkcode inferLayer} and {@linkcode backwardLayer} run any, {@linkcode convertSyncBatchNorm} synchronises all.
 *    {@linkcode freeze}, {@linkcode resetRunningStats}, {@linkcode foldModel} and {@linkcode mapLayers} take whole models
 *    too; {@linkcode preciseStatistics} takes their statistics of a data set, {@linkcode describe} and {@linkcode watch} say
 *    how well a state is.
 *    The entry point `./checkpoint` takes them to files and back.
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, syncBatchNormForward, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * const states = await runRanks(3, async (group) => {
 *   const input = tensor(device, [group.rank, 1], [1, 2]);
 *   const forward = await syncBatchNormForward(state, input, { device, group });
 *   return forward.state;
 * });
 * console.assert(states.every(({ numBatchesTracked }) => numBatchesTracked === 1));
 * ```
 *
 * @module
 */

export {
  type DType,
  type Format,
  type Tensor,
  tensor,
  type TensorOptions,
  toArray,
} from "./lib/tensor.ts";
export {
  type BatchNormOptions,
  type BatchNormState,
  initBatchNorm,
  stateFromHost,
  stateToHost,
  withParameters,
} from "./lib/state.ts";
export {
  type ConstantMomentum,
  type CosineMomentum,
  type Momentum,
  momentumAt,
  type MomentumSchedule,
  type StepMomentum,
  type ZeroDebiasedMomentum,
} from "./lib/schedule.ts";
export {
  batchNormForward,
  type Forward,
  type ForwardOptions,
  type GroupForward,
  type LocalForward,
  syncBatchNormForward,
  syncBatchNormForwardBlocking,
  type SyncForwardOptions,
} from "./lib/norm/forward.ts";
export {
  type Backward,
  type BackwardOptions,
  batchNormBackward,
  type KeepSums,
  type KeptSums,
  type SyncBackwardOptions,
  syncBatchNormBackward,
  syncBatchNormBackwardBlocking,
} from "./lib/norm/backward.ts";
export {
  batchNormForwardParts,
  type PartsForward,
  type PartsOptions,
  syncBatchNormForwardParts,
  syncBatchNormForwardPartsBlocking,
  type SyncPartsOptions,
} from "./lib/norm/parts.ts";
export {
  batchNormBackwardParts,
  type PartsBackward,
  syncBatchNormBackwardParts,
  syncBatchNormBackwardPartsBlocking,
} from "./lib/norm/parts_backward.ts";
export {
  modulate,
  type ModulateBackward,
  modulateBackward,
  type Modulated,
  type ModulateOptions,
  type ModulateSaved,
  type Modulation,
} from "./lib/norm/modulate.ts";
export {
  batchNormForwardGhost,
  type GhostForward,
  type GhostOptions,
  type GhostSaved,
  syncBatchNormForwardGhost,
  syncBatchNormForwardGhostBlocking,
  type SyncGhostOptions,
} from "./lib/norm/ghost.ts";
export { batchNormBackwardGhost } from "./lib/norm/ghost_backward.ts";
export { boundAt, type Ramp, type RenormBounds } from "./lib/norm/bounds.ts";
export {
  batchRenormForward,
  type RenormForward,
  type RenormOptions,
  type RenormSaved,
  syncBatchRenormForward,
  syncBatchRenormForwardBlocking,
  type SyncRenormOptions,
} from "./lib/norm/renorm.ts";
export {
  batchRenormBackward,
  syncBatchRenormBackward,
  syncBatchRenormBackwardBlocking,
} from "./lib/norm/renorm_backward.ts";
export type { Activation, Rectified, Rectifier } from "./lib/activation.ts";
export {
  type BackwardBranch,
  type ForwardBranch,
  syncBatchNormBackwardAll,
  syncBatchNormForwardAll,
} from "./lib/norm/branches.ts";
export {
  batchNormInfer,
  batchNormInferBackward,
  type InferBackwardOptions,
  type InferOptions,
} from "./lib/norm/infer.ts";
export {
  batchNormJvp,
  syncBatchNormJvp,
  syncBatchNormJvpBlocking,
  type Tangents,
} from "./lib/norm/jvp.ts";
export {
  type BackwardBackwardOptions,
  type BackwardCotangents,
  batchNormBackwardBackward,
  type SyncBackwardBackwardOptions,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardBackwardBlocking,
} from "./lib/norm/backward_backward.ts";
export {
  batchNormBackwardMoments,
  type MomentsGradients,
  syncBatchNormBackwardMoments,
  syncBatchNormBackwardMomentsBlocking,
} from "./lib/norm/backward_moments.ts";
export type { BackwardBackward } from "./lib/norm/second_sums.ts";
export { batchNormInferBackwardBackward, batchNormInferJvp } from "./lib/norm/infer_second.ts";
export {
  allReduceMoments,
  allReduceMomentsBlocking,
  batchMoments,
  type GroupMoments,
  type LocalMoments,
  mergeMoments,
  type Moments,
} from "./lib/norm/statistics.ts";
export { updateRunningStats } from "./lib/norm/running.ts";
export type { WeightOptions, Weights } from "./lib/norm/weights.ts";
export {
  type GroupSaved,
  type LocalSaved,
  type Normalized,
  type NormalizeOptions,
  normalizeWith,
  type Saved,
} from "./lib/norm/normalize.ts";
export {
  type BatchNormLayer,
  initLayer,
  initLazyLayer,
  type LayerKind,
  type LayerOptions,
  type LayerSettings,
  type LazyBatchNormLayer,
  type LazyLayerOptions,
  type LazyOptions,
  type MaterializedLayer,
  materializeLayer,
  type NewLayerOptions,
} from "./lib/layers/layer.ts";
export { freeze, type FreezeOptions, unfreeze } from "./lib/layers/freeze.ts";
export { type LayerChoice, mapLayers } from "./lib/layers/replace.ts";
export { type ResetOptions, resetRunningStats } from "./lib/layers/reset.ts";
export {
  type Batches,
  type PreciseEffects,
  type PreciseForward,
  preciseStatistics,
} from "./lib/layers/precise.ts";
export { describe, type DescribeOptions, type Health, healthTable } from "./lib/layers/health.ts";
export { healthSvg } from "./lib/layers/health_svg.ts";
export { type History, historyTable, watch, type WatchOptions } from "./lib/layers/watch.ts";
export {
  applyLayer,
  type FrozenSaved,
  type GroupLayerSaved,
  type GroupRenormSaved,
  inferLayer,
  type LayerForward,
  type LayerSaved,
} from "./lib/layers/apply.ts";
export {
  applyLayerParts,
  backwardLayerParts,
  type LayerPartsForward,
  type LayerPartsSaved,
} from "./lib/layers/parts.ts";
export { backwardLayer } from "./lib/layers/backward.ts";
export { checkModel, type LayerEffects } from "./lib/layers/effects.ts";
export {
  type ConvertOptions,
  convertSyncBatchNorm,
  revertSyncBatchNorm,
} from "./lib/layers/convert.ts";
export { foldBatchNorm, type FoldedLayer, type LinearLayer } from "./lib/layers/fold.ts";
export { foldModel, type FoldModelOptions, type LinearNode } from "./lib/layers/fold_model.ts";
export { addScaled, allFinite, mapArrays } from "./lib/tree_arithmetic.ts";
export { batch, region, type RegionOptions, release } from "./lib/ownership.ts";
export {
  allReduceGradients,
  type AllReduceGradientsOptions,
  lossScale,
} from "./lib/data_parallel/gradients.ts";
export type { Reduced } from "./lib/data_parallel/exact.ts";
export { type ExactSums, exactSums } from "./lib/exact/sums.ts";
export {
  assertReplicated,
  broadcastState,
  type BroadcastStateOptions,
} from "./lib/data_parallel/replicas.ts";
export { type JoinedStep, joinUneven, type JoinUnevenOptions } from "./lib/data_parallel/steps.ts";
export type { Device, DeviceInfo } from "./lib/device.ts";
export {
  type ReferenceArray,
  referenceDevice,
  type ReferenceOptions,
} from "./lib/reference/device.ts";
export type {
  AllGather,
  AllReduce,
  AllReduceBlocking,
  Barrier,
  BlockingGroup,
  Broadcast,
  CollectiveOptions,
  Combine,
  ProcessGroup,
  ReduceGroup,
  ReduceOptions,
  Split,
} from "./lib/collectives.ts";
export { combineMoments, sum } from "./lib/moments.ts";
export { inProcessGroup, type InProcessOptions, runRanks } from "./lib/groups/in_process.ts";
export { fromAllGather } from "./lib/groups/from_all_gather.ts";
export {
  CollectiveError,
  type CollectiveErrorCode,
  DeviceError,
  type DeviceErrorCode,
  isCollectiveError,
  isDeviceError,
} from "./lib/errors.ts";
