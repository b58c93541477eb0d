/**
 * How to make layers, and to give them a state.
 *
 * A lazy layer's weight begins as 1: with a generator in it, it would be no data, could not travel, and would begin
 * differently on ranks that share the generator. `frozen` and `activation` are fields beside the three that every layer
 * has: what a conversion must not lose.
 */

import { checkOptions } from "../check_effects.ts";
import type { Device } from "../device.ts";
import {
  BATCH_NORM_OPTIONS,
  type BatchNormOptions,
  type BatchNormState,
  initBatchNorm,
} from "../state.ts";
import {
  type BatchNormLayer,
  checkLayer,
  checkSettings,
  type LayerKind,
  type LayerSettings,
  type LazyBatchNormLayer,
  type LazyOptions,
} from "./check_layer.ts";

export type * from "./check_layer.ts";

/** A layer that was lazy, or may have been, with its state and all other fields. */
export type MaterializedLayer<A, L> = L extends LazyBatchNormLayer
  ? Omit<L, "state" | "lazy"> & BatchNormLayer<A>
  : L & BatchNormLayer<A>;

/** Options of a new layer: its group, activation, and how it normalizes. */
export type NewLayerOptions = Partial<Omit<LayerSettings, "kind" | "frozen">>;

/** Options of a new layer and of its state. */
export interface LayerOptions extends BatchNormOptions, NewLayerOptions {}

/** Options of a new layer without a state. */
export interface LazyLayerOptions extends LazyOptions, NewLayerOptions {}

const ACTION = "make the layer";
const OPTIONS = /* @__PURE__ */ BATCH_NORM_OPTIONS.concat(
  ["processGroup", "activation", "ghost", "renorm"],
);

/**
 * Makes a layer with a new state.
 *
 * @param device where its vectors shall live
 * @param kind which batches it takes: `"batchNorm1d"` of rank 2 or 3, `"batchNorm2d"` of rank 4, `"batchNorm3d"` of rank
 * 5, `"batchNorm"` of any rank >= 2
 * @param numFeatures number of channels C, >= 1
 * @param options those of `initBatchNorm`; `processGroup`: the name of a group to share statistics with, null by default;
 * `activation`; `ghost`: samples of a ghost batch, or `renorm`: bounds of batch renormalization
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
  checkSettings(settings, ACTION);
  return Object.freeze({ ...settings, state: initBatchNorm(device, numFeatures, rest) });
}

/**
 * Makes a layer that takes its number of channels from the first batch, or from a checkpoint.
 *
 * @param kind which batches it takes, as in {@linkcode initLayer}
 * @param options as in {@linkcode initLayer}, without `weightInit` and `random`: the weight begins as 1
 * @returns a frozen layer without a state
 * @throws RangeError for a value out of range, TypeError for a value of another kind
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
export function initLazyLayer(kind: LayerKind, options: LazyLayerOptions = {}): LazyBatchNormLayer {
  const { settings, rest } = split(kind, options);
  const layer = Object.freeze({ ...settings, state: null, lazy: Object.freeze(rest) });
  checkLayer(layer, ACTION);
  return layer;
}

function split<O extends NewLayerOptions>(kind: LayerKind, options: O) {
  checkOptions(options, OPTIONS, ACTION);
  const { processGroup = null, activation, ghost, renorm, ...rest } = options;
  const settings: LayerSettings = {
    kind,
    processGroup,
    ...(activation !== undefined && { activation }),
    ...(ghost !== undefined && { ghost }),
    ...(renorm !== undefined && { renorm }),
  };
  return { settings, rest };
}

/**
 * Gives a lazy layer its state, as the first batch would.
 *
 * @param device where its vectors shall live
 * @param layer the layer; one that has a state of as many channels is returned as it is
 * @param numFeatures number of channels C, >= 1
 * @returns a frozen layer that owns its vectors, with all other fields of the given one
 * @throws TypeError or RangeError for what is no layer, or has other channels already
 *
 * @example
 * ```ts
 * import { initLazyLayer, materializeLayer, referenceDevice } from "@syncbn/syncbn";
 *
 * const layer = materializeLayer(referenceDevice(), initLazyLayer("batchNorm"), 8);
 * console.assert(layer.state.numFeatures === 8);
 * ```
 */
export function materializeLayer<A, L extends BatchNormLayer<A> | LazyBatchNormLayer>(
  device: Device<A>,
  layer: L,
  numFeatures: number,
): MaterializedLayer<A, L> {
  const action = "give the layer its state";
  checkLayer<A>(layer, action);
  if (layer.state === null) {
    return withState(layer, initBatchNorm(device, numFeatures, layer.lazy));
  }
  if (layer.state.numFeatures !== numFeatures) {
    throw new RangeError(
      `Cannot ${action} as it must have none, or one of as many channels: ` +
        `current values are ${layer.state.numFeatures} and ${numFeatures}`,
    );
  }
  return withState(layer, layer.state);
}

/** Replaces a layer's state. */
export function withState<A, L extends BatchNormLayer<A> | LazyBatchNormLayer>(
  layer: L,
  state: BatchNormState<A>,
): MaterializedLayer<A, L> {
  // The compiler does not follow what is left of a type that may be lazy.
  type Result = MaterializedLayer<A, L>;
  if (layer.state === state) return layer as Result;
  const { lazy, ...rest }: LayerSettings & { readonly lazy?: unknown } = layer;
  const own = layer.state === null || lazy === undefined ? rest : { ...rest, lazy };
  return Object.freeze({ ...own, state }) as unknown as Result;
}
