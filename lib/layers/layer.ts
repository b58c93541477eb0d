/**
 * Batch norms as parts of a model: plain records that say which batches they take and which group they share
 * statistics with.
 *
 * @module
 */

import type { Device } from "../device.ts";
import {
  type BatchNormOptions,
  type BatchNormState,
  checkStateRecord,
  initBatchNorm,
} from "../state.ts";

/** Which batches a layer takes: of rank 2 or 3, 4, 5, or any rank >= 2. */
export type LayerKind = "batchNorm1d" | "batchNorm2d" | "batchNorm3d" | "batchNorm";

/** What all layers say of themselves. */
export interface LayerSettings {
  /** Which batches it takes; sets it apart from the other nodes of a model. */
  readonly kind: LayerKind;
  /**
   * Name of the group of ranks that it shares statistics with, to be looked up among `effects.groups` in each call; null
   * for a layer that keeps to its own rank.
   */
  readonly processGroup: string | null;
  /** Applied last, in training and evaluation, unless a call says otherwise. */
  readonly activation?: "relu";
  /**
   * What training leaves as it is: `"statistics"` normalizes with the running statistics and does not update them;
   * `"all"` gives no gradients of weight and bias either. Left out for a layer that learns.
   */
  readonly frozen?: "statistics" | "all";
}

/**
 * A batch norm as a part of a model: a plain record, which may stand anywhere in a tree of plain records and arrays.
 * Fields of your own stay with it.
 */
export interface BatchNormLayer<A> extends LayerSettings {
  /** Weight, bias and running statistics, on a device or on the host. */
  readonly state: BatchNormState<A>;
}

/** A batch norm that takes its number of channels from the first batch. */
export interface LazyBatchNormLayer extends LayerSettings {
  /** There is none yet. */
  readonly state: null;
  /** What its state will be made with. */
  readonly lazy: BatchNormOptions;
}

/** Options of a new layer: those of its state, and its group. */
export interface LayerOptions
  extends BatchNormOptions, Partial<Pick<LayerSettings, "processGroup" | "activation">> {}

const ACTION = "make the layer";

/** Ranks of the batches that a kind takes, and how PyTorch calls them. */
const RANKS: Readonly<Record<LayerKind, readonly [least: number, most: number, called: string]>> = {
  batchNorm1d: [2, 3, "2D or 3D"],
  batchNorm2d: [4, 4, "4D"],
  batchNorm3d: [5, 5, "5D"],
  batchNorm: [2, Infinity, "at least 2D"],
};

/**
 * Makes a layer with a new state.
 *
 * @param device where its vectors shall live
 * @param kind which batches it takes: `"batchNorm1d"` of rank 2 or 3, `"batchNorm2d"` of rank 4, `"batchNorm3d"` of rank
 * 5, `"batchNorm"` of any rank >= 2
 * @param numFeatures number of channels C, >= 1
 * @param options those of `initBatchNorm`; `processGroup`: the name of a group to share statistics with, null by default;
 * `activation`
 * @returns a frozen layer that owns its vectors
 * @throws RangeError for a value out of range, TypeError for a value of another kind
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const model = { stem: [initLayer(device, "batchNorm2d", 64, { activation: "relu" })] };
 * console.assert(model.stem[0].processGroup === null);
 * ```
 */
export function initLayer<A>(
  device: Device<A>,
  kind: LayerKind,
  numFeatures: number,
  options: LayerOptions = {},
): BatchNormLayer<A> {
  const { settings, rest } = split(kind, options);
  return Object.freeze({ ...settings, state: initBatchNorm(device, numFeatures, rest) });
}

/**
 * Makes a layer that takes its number of channels from the first batch, or from a checkpoint.
 *
 * @param kind which batches it takes, as in {@linkcode initLayer}
 * @param options as in {@linkcode initLayer}; they are checked when the state is made
 * @returns a frozen layer without a state
 * @throws TypeError for a kind, a group's name or an activation that is none
 *
 * @example
 * ```ts
 * import { applyLayer, initLazyLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 3, 4, 5, 6], [2, 3]);
 * const { layer } = await applyLayer(initLazyLayer("batchNorm1d"), x, { device });
 * console.assert(layer.state.numFeatures === 3);
 * ```
 */
export function initLazyLayer(kind: LayerKind, options: LayerOptions = {}): LazyBatchNormLayer {
  const { settings, rest } = split(kind, options);
  return Object.freeze({ ...settings, state: null, lazy: Object.freeze(rest) });
}

function split(
  kind: LayerKind,
  { processGroup = null, activation, ...rest }: LayerOptions,
): { readonly settings: LayerSettings; readonly rest: BatchNormOptions } {
  const settings = { kind, processGroup, ...(activation !== undefined && { activation }) };
  checkSettings(settings, ACTION);
  return { settings, rest };
}

/**
 * Gives a lazy layer its state, as the first batch would.
 *
 * @param device where its vectors shall live
 * @param layer the layer; one that has a state is returned as it is
 * @param numFeatures number of channels C, >= 1
 * @returns a frozen layer that owns its vectors
 * @throws TypeError or RangeError for what is no layer, or for options that are out of range
 *
 * @example
 * ```ts
 * import { initLazyLayer, materializeLayer, referenceDevice } from "@syncbn/syncbn";
 *
 * const layer = materializeLayer(referenceDevice(), initLazyLayer("batchNorm"), 8);
 * console.assert(layer.state.numFeatures === 8);
 * ```
 */
export function materializeLayer<A>(
  device: Device<A>,
  layer: BatchNormLayer<A> | LazyBatchNormLayer,
  numFeatures: number,
): BatchNormLayer<A> {
  checkLayer(layer, "give the layer its state");
  if (!isLazy(layer)) return layer;
  return withState(layer, initBatchNorm(device, numFeatures, layer.lazy));
}

/** Options of {@linkcode freeze}. */
export interface FreezeOptions {
  /** Whether weight and bias are fixed too; false by default. */
  readonly affine?: boolean;
}

/**
 * Fixes a layer's running statistics, for fine-tuning: training normalizes with them, and neither updates them nor
 * communicates. {@linkcode unfreeze} is the way back.
 *
 * @param layer the layer; it is not changed
 * @param options `affine`: whether weight and bias are fixed too, so that backward gives null for their gradients
 * @returns a frozen layer that shares its state with the given one
 * @throws TypeError where the layer has no running statistics, or is none
 *
 * @example
 * ```ts
 * import { applyLayer, freeze, initLayer, referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const fixed = freeze(initLayer(device, "batchNorm1d", 1, { processGroup: "world" }));
 * const { layer } = await applyLayer(fixed, tensor(device, [1, 5], [2, 1]), { device });
 * console.assert(layer === fixed);
 * ```
 */
export function freeze<A, L extends BatchNormLayer<A>>(
  layer: L,
  { affine = false }: FreezeOptions = {},
): L {
  const action = "freeze the layer";
  checkLayer(layer, action);
  if (layer.state === null) throw lazyError(layer, action);
  if (layer.state.runningMean === null) {
    throw new TypeError(
      `Cannot ${action} as it must have running statistics to normalize with: ` +
        `current state tracks none`,
    );
  }
  return Object.freeze({ ...layer, frozen: affine ? "all" : "statistics" });
}

/**
 * Lets a frozen layer learn again.
 *
 * @param layer the layer; it is not changed
 * @returns a frozen layer as it was before {@linkcode freeze}, that shares its state with the given one
 * @throws TypeError or RangeError for what is no layer
 *
 * @example
 * ```ts
 * import { freeze, initLayer, referenceDevice, unfreeze } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const layer = initLayer(referenceDevice(), "batchNorm1d", 1);
 * assert.deepEqual(unfreeze(freeze(layer)), layer);
 * ```
 */
export function unfreeze<A, L extends BatchNormLayer<A>>(layer: L): L {
  checkLayer(layer, "unfreeze the layer");
  const { frozen: _, ...learning } = layer;
  return Object.freeze(learning) as L;
}

/**
 * Tells whether a node of a model says that it is one of ours.
 *
 * @param node a plain record
 * @returns whether its kind is one of the four
 */
export function claimsLayer(node: object): node is { readonly kind: LayerKind } {
  return "kind" in node && isKind(node.kind);
}

/**
 * Tells whether a checked layer has no state yet.
 *
 * @param layer the layer
 * @returns whether its channels are still to be learnt
 */
export function isLazy<A>(
  layer: BatchNormLayer<A> | LazyBatchNormLayer,
): layer is LazyBatchNormLayer {
  return layer.state === null;
}

/**
 * Replaces a layer's state.
 *
 * @param layer the layer; it is not changed
 * @param state its new state
 * @returns a frozen layer with all other fields of the given one; the given one itself where the state is its own
 */
export function withState<A, L extends BatchNormLayer<A> | LazyBatchNormLayer>(
  layer: L,
  state: BatchNormState<A>,
): L & BatchNormLayer<A> {
  if (layer.state === state) return layer as L & BatchNormLayer<A>;
  const { lazy: _, ...rest } = layer as L & Partial<LazyBatchNormLayer>;
  return Object.freeze({ ...rest, state }) as unknown as L & BatchNormLayer<A>;
}

/**
 * Checks that a record is a layer; where its vectors lie nobody can tell here.
 *
 * @param layer the record
 * @param action what the caller was about to do, for the message
 * @throws TypeError or RangeError that says what does not fit
 */
export function checkLayer<A>(
  layer: BatchNormLayer<A> | LazyBatchNormLayer,
  action: string,
): void {
  if (typeof layer !== "object" || layer === null || !("state" in layer)) {
    throw new TypeError(
      `Cannot ${action} as a layer must be { kind, processGroup, state }: current value ${
        typeof layer === "object" && layer !== null
          ? `holds ${Object.keys(layer).join(", ") || "nothing"}`
          : `is ${layer}`
      }`,
    );
  }
  checkSettings(layer, action);
  if (!isLazy(layer)) checkStateRecord(layer.state, action);
  else if (typeof layer.lazy !== "object" || layer.lazy === null) {
    throw new TypeError(
      `Cannot ${action} as a layer whose state is null must have lazy, the options of its state: ` +
        `current value is ${layer.lazy}`,
    );
  }
}

/**
 * Checks that a batch has a rank that the layer takes.
 *
 * @param kind the layer's kind
 * @param shape the batch's shape
 * @param action what the caller was about to do, for the message
 * @throws TypeError in PyTorch's words
 */
export function checkRank(kind: LayerKind, shape: readonly number[], action: string): void {
  const [least, most, called] = RANKS[kind];
  if (!Array.isArray(shape) || (shape.length >= least && shape.length <= most)) return;
  throw new TypeError(
    `Cannot ${action} as ${kind} expected ${called} input (got ${shape.length}D input): ` +
      `current shape is (${shape.join(", ")})`,
  );
}

/**
 * Makes the error for a layer that must have a state and has none.
 *
 * @param layer with its kind
 * @param action what the caller was about to do, for the message
 * @returns the error
 */
export function lazyError({ kind }: { readonly kind: LayerKind }, action: string): TypeError {
  return new TypeError(
    `Cannot ${action} as a lazy ${kind} must have seen its channels first, ` +
      `by applyLayer or materializeLayer: current state is null`,
  );
}

function isKind(kind: unknown): kind is LayerKind {
  return typeof kind === "string" && Object.hasOwn(RANKS, kind);
}

function checkSettings(
  { kind, processGroup, activation, frozen }: LayerSettings,
  action: string,
): void {
  const refuse = (name: string, wanted: string, value: unknown): never => {
    throw new TypeError(
      `Cannot ${action} as ${name} must be ${wanted}: current value is ${
        typeof value === "string" ? JSON.stringify(value) : String(value)
      }`,
    );
  };
  if (!isKind(kind)) {
    refuse("kind", '"batchNorm1d", "batchNorm2d", "batchNorm3d" or "batchNorm"', kind);
  }
  if (processGroup !== null && (typeof processGroup !== "string" || processGroup === "")) {
    refuse("processGroup", "the name of a group, or null for none", processGroup);
  }
  if (activation !== undefined && activation !== "relu") {
    refuse("activation", '"relu" or left out', activation);
  }
  if (frozen !== undefined && frozen !== "statistics" && frozen !== "all") {
    refuse("frozen", '"statistics", "all" or left out', frozen);
  }
}
