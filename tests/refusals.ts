/** Calls of the public functions, each of which works as it stands, for tests that spoil one value of them after another. */

import * as bn from "../mod.ts";
import { normalArray } from "./random.ts";

export const device: bn.Device<bn.ReferenceArray> = bn.referenceDevice();

/** A rank that hears itself alone, of two: what it must tell is told, and nobody answers. */
const group = {
  ...{ worldSize: 2, rank: 0 },
  allReduce: async (local: Float64Array | Promise<Float64Array>) => (await local).slice(),
  allReduceBlocking: (local: Float64Array | (() => Float64Array)) =>
    (typeof local === "function" ? local() : local).slice(),
};
const here = { device };
const shared = { device, group };
const named = { device, groups: { world: group } };

const [N, C, L] = [4, 2, 3];

/** A tensor of the batch's shape, or of another. */
export function put(shape: readonly number[] = [N, C, L]): bn.Tensor<bn.ReferenceArray> {
  return bn.tensor(device, normalArray(shape.reduce((a, b) => a * b, 1), 1), shape);
}

const vector = () => device.upload(Float32Array.of(1, 2));
const state = () => bn.initBatchNorm(device, C);
const lengths = Int32Array.of(3, 0, 2, 1);
const bounded = { negativeSlope: 0.1, maxValue: 6 };
const ramp = { rule: "ramp", from: 1, to: 3, begin: 5, end: 9 } as const;
const bounds = { rmax: ramp, dmax: 1 };
const weights = () => bn.tensor(device, normalArray(N * L, 2).map(Math.abs), [N, 1, L]);
const layer = (options: object = {}) => bn.initLayer(device, "batchNorm1d", C, options);
const tangents = () => ({ input: put(), weight: vector(), bias: vector(), residual: put() });
const cotangents = () => ({
  ...{ gradInput: put(), gradWeight: vector(), gradBias: vector(), gradResidual: put() },
});
const weighted = () => ({ activation: bounded, residual: put(), weights: weights() });
const several = () => ({
  ...{ activation: "relu", residuals: [put(), put()], weights: [weights(), weights()] } as const,
});

const saved = bn.batchNormForward(state(), put(), here, weighted()).saved;
const kept = bn.batchNormBackward(saved, put(), here, { keepSums: true }).sums;
const ghost = bn.batchNormForwardGhost(state(), put(), here, { ghost: 2, ...weighted() }).saved;
const parts = bn.batchNormForwardParts(state(), [put(), put()], here, several()).saved;
const modulation = () => ({ scale: put([N, C]), offset: put([N, C]) });
const { saved: modulated } = bn.modulate(put(), modulation(), here, { activation: "relu" });
const over = { activation: "relu", residual: put(), lengths } as const;
const { saved: common } = await bn.syncBatchNormForward(state(), put(), shared, over);
const { saved: commonParts } = await bn.syncBatchNormForwardParts(state(), [put()], shared);
const { saved: corrected } = await bn.batchRenormForward(state(), put(), here, bounds);
const { saved: allCorrected } = await bn.syncBatchRenormForward(state(), put(), shared, bounds);
const world = layer({ processGroup: "world" });
const { saved: layered } = await bn.applyLayer(world, put(), named, { lengths });
const { saved: layeredParts } = await bn.applyLayerParts(world, [put()], named);
const moments = () => bn.batchMoments(put(), here, { weights: weights() });
const host = await bn.stateToHost(device, state());
const untracked = () => bn.initBatchNorm(device, C, { trackRunningStats: false });

/** Arguments by the function's name, behind which a word may tell of another way to call it. */
export const CALLS: Readonly<Record<string, () => readonly unknown[]>> = {
  batchNormForward: () => [state(), put(), here, { ...weighted(), updateRunningStats: true }],
  "batchNormForward lengths": () => [state(), put(), here, { lengths }],
  syncBatchNormForward: () => [state(), put(), shared, weighted()],
  syncBatchNormForwardBlocking: () => [state(), put(), shared, { lengths }],
  syncBatchNormForwardAll: () => [[{ state: state(), input: put(), options: over }], shared],
  batchNormBackward: () => [saved, put(), here, { keepSums: true, donate: false }],
  syncBatchNormBackward: () => [common, put(), shared, { keepSums: true }],
  syncBatchNormBackwardBlocking: () => [common, put(), shared, { donate: false }],
  syncBatchNormBackwardAll: () => {
    const options = { keepSums: true };
    return [[{ saved: common, gradOutput: put(), options }], shared];
  },
  batchNormForwardParts: () => [state(), [put(), put()], here, several()],
  syncBatchNormForwardParts: () => [state(), [put()], shared, { lengths: [lengths] }],
  syncBatchNormForwardPartsBlocking: () => [state(), [put(), put()], shared, several()],
  batchNormBackwardParts: () => [parts, [put(), put()], here],
  syncBatchNormBackwardParts: () => [commonParts, [put()], shared],
  syncBatchNormBackwardPartsBlocking: () => [commonParts, [put()], shared],
  batchNormForwardGhost: () => [state(), put(), here, { ghost: 2, ...weighted() }],
  syncBatchNormForwardGhost: () => [state(), put(), shared, { ghost: 2, lengths }],
  syncBatchNormForwardGhostBlocking: () => [state(), put(), shared, { ghost: 2, ...weighted() }],
  batchNormBackwardGhost: () => [ghost, put(), here, { donate: false }],
  batchRenormForward: () => [state(), put(), here, { ...bounds, weights: weights() }],
  syncBatchRenormForward: () => [state(), put(), shared, { ...bounds, lengths }],
  syncBatchRenormForwardBlocking: () => [state(), put(), shared, bounds],
  batchRenormBackward: () => [corrected, put(), here],
  syncBatchRenormBackward: () => [allCorrected, put(), shared],
  syncBatchRenormBackwardBlocking: () => [allCorrected, put(), shared],
  modulate: () => [put(), modulation(), here, { activation: bounded, residual: put() }],
  modulateBackward: () => [modulated, put(), here],
  batchNormInfer: () => [state(), put(), here, { activation: bounded, residual: put() }],
  "batchNormInfer by the batch": () => [untracked(), put(), here, { weights: weights() }],
  batchNormInferBackward: () => [state(), put(), put(), here, { activation: bounded }],
  batchNormJvp: () => [saved, tangents(), here],
  syncBatchNormJvp: () => [common, tangents(), shared],
  syncBatchNormJvpBlocking: () => [common, tangents(), shared],
  batchNormBackwardBackward: () => [saved, put(), cotangents(), here, { sums: kept }],
  syncBatchNormBackwardBackward: () => [common, put(), cotangents(), shared],
  syncBatchNormBackwardBackwardBlocking: () => [common, put(), cotangents(), shared],
  batchNormBackwardMoments: () => [saved, put(), { dmean: vector(), dvariance: vector() }, here],
  syncBatchNormBackwardMoments: () => [common, put(), { dmean: vector() }, shared],
  syncBatchNormBackwardMomentsBlocking: () => [common, put(), { dvariance: vector() }, shared],
  batchNormInferJvp: () => [state(), put(), tangents(), here, { residual: put() }],
  batchNormInferBackwardBackward: () => {
    return [state(), put(), put(), cotangents(), here, { residual: put(), activation: bounded }];
  },
  batchMoments: () => [put(), here, { weights: weights() }],
  "batchMoments lengths": () => [put(), here, { lengths }],
  mergeMoments: () => [moments(), moments(), here],
  allReduceMoments: () => [moments(), shared],
  allReduceMomentsBlocking: () => [moments(), shared],
  updateRunningStats: () => [state(), moments(), here],
  normalizeWith: () => {
    const options = { activation: bounded, residual: put() };
    return [state(), put(), bn.batchMoments(put(), here), here, options];
  },
  applyLayer: () => [layer({ ghost: 2 }), put(), here, weighted()],
  "applyLayer renorm": () => [{ ...world, renorm: bounds }, put(), named, { lengths }],
  inferLayer: () => [layer({ activation: bounded }), put(), here, { residual: put() }],
  backwardLayer: () => [layered, put(), named, { donate: false }],
  applyLayerParts: () => [layer(), [put()], here, { weights: [weights()] }],
  backwardLayerParts: () => [layeredParts, [put()], named],
  initLayer: () => {
    const momentum = { rule: "cosine", from: 0.5, to: 0.1, steps: 10 };
    return [device, "batchNorm1d", C, { ghost: 2, activation: bounded, momentum }];
  },
  "initLayer renorm": () => [device, "batchNorm1d", C, { renorm: bounds }],
  initLazyLayer: () => ["batchNorm1d", { ghost: 2, activation: bounded }],
  initBatchNorm: () => {
    const options = { momentum: { rule: "zeroDebiased", value: 0.1 }, scale: true, bias: false };
    return [device, C, { runningVariance: "biased", trackRunningStats: true, ...options }];
  },
  withParameters: () => [state(), {}],
  stateFromHost: () => [device, host],
  describe: () => [state(), here],
  referenceDevice: () => [{ exact: true }],
  freeze: () => [layer(), { affine: true }],
  unfreeze: () => [{ norm: layer() }],
  materializeLayer: () => [device, bn.initLazyLayer("batchNorm1d", { ghost: 2 }), C],
  convertSyncBatchNorm: () => [{ norm: layer() }, { processGroup: "world" }],
  revertSyncBatchNorm: () => [{ norm: layer() }],
  resetRunningStats: () => [device, layer(), { momentum: 0.1 }],
  mapLayers: () => [{ norm: layer() }, (norm: unknown) => norm],
  checkModel: () => [world, named],
  boundAt: () => [ramp, 7],
  momentumAt: () => [{ rule: "step", value: 0.5, factor: 0.5, every: 10 }, 4],
  lossScale: () => [4, group],
  exactSums: () => [3],
  addScaled: () => [device, vector(), vector(), 2],
  tensor: () => [device, Float32Array.of(1, 2), [2, 1], { format: "channelsLast" }],
  toArray: () => [device, put()],
  stateToHost: () => [device, state()],
  region: () => [device, () => 1],
  batch: () => [device, () => 1],
  runRanks: () => [1, () => 1, { timeoutMs: 1000 }],
  inProcessGroup: () => [2, { timeoutMs: 1000 }],
  fromAllGather: () => [(own: unknown) => Promise.resolve([own, own])],
};
