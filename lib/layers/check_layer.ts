/**
 * Batch norms as parts of a model: plain records that say which batches they take and which group they share statistics
 * with; and what such a record must have, and a batch to be one for it.
 */

import type { Activation } from "../activation.ts";
import { checkStateRecord } from "../check_state.ts";
import { checkOneOf } from "../check_value.ts";
import { checkBounds, type RenormBounds } from "../norm/bounds.ts";
import { checkActivation, checkGhost } from "../norm/check_call.ts";
import { type BatchNormOptions, type BatchNormState, firstState } from "../state.ts";
import { refused, shown, wrongKind } from "../words.ts";

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
  /** Applied last, in training and evaluation. */
  readonly activation?: Activation;
  /** Samples of a ghost batch: training normalizes each group of so many by itself. Left out for the whole batch. */
  readonly ghost?: number;
  /** Bounds of batch renormalization, by which training is corrected towards the running statistics. Left out for none. */
  readonly renorm?: RenormBounds;
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

/** A batch norm that takes its number of channels from the first batch. Plain data: it travels to workers and files. */
export interface LazyBatchNormLayer extends LayerSettings {
  /** There is none yet. */
  readonly state: null;
  /** What its state will be made with. */
  readonly lazy: LazyOptions;
}

/** Any layer of a model. */
export type AnyLayer<A> = BatchNormLayer<A> | LazyBatchNormLayer;

/** Options of a state that is still to be made: all but those that draw the weight, which begins as 1. */
export type LazyOptions = Omit<BatchNormOptions, "weightInit" | "random">;

/** Ranks of the batches that a kind takes, and how PyTorch calls them. */
export const RANKS: Readonly<
  Record<LayerKind, readonly [least: number, most: number, called: string]>
> = {
  batchNorm1d: [2, 3, "2D or 3D"],
  batchNorm2d: [4, 4, "4D"],
  batchNorm3d: [5, 5, "5D"],
  batchNorm: [2, Infinity, "at least 2D"],
};

/** Tells whether a node of a model says that it is a layer; whether it is a sound one is another question. */
export function claimsLayer<A>(node: object): node is AnyLayer<A> {
  // Not node.kind: a getter is not to be called.
  const kind = Object.getOwnPropertyDescriptor(node, "kind")?.value;
  const isKind = typeof kind === "string" && Object.hasOwn(RANKS, kind);
  return isKind || (kind !== undefined && "processGroup" in node && "state" in node);
}

/** Checks that a record is a layer; where its vectors lie nobody can tell here. */
export function checkLayer<A>(layer: AnyLayer<A>, action: string): void {
  if (typeof layer !== "object" || layer === null || !("state" in layer)) {
    const held = Object.keys(layer ?? {}).join(", ") || "nothing";
    const isRecord = typeof layer === "object" && layer !== null;
    const came = isRecord ? `holds ${held}` : `is ${shown(layer)}`;
    throw refused(action, "a layer must be { kind, processGroup, state }", `value ${came}`);
  }
  checkSettings(layer, action);
  if (layer.state === null) checkLazy(layer.lazy, action);
  else checkStateRecord(layer.state, action);
  const tracks = layer.state === null
    ? layer.lazy.trackRunningStats !== false
    : layer.state.runningMean !== null;
  if (tracks || (layer.frozen === undefined && layer.renorm === undefined)) return;
  const what = layer.frozen === undefined ? "renormalizing" : "frozen";
  const wanted = `a ${what} layer must have running statistics to normalize with`;
  throw refused(action, wanted, "state tracks none");
}

function checkLazy(lazy: LazyOptions, action: string): void {
  if (typeof lazy !== "object" || lazy === null || Array.isArray(lazy)) {
    const wanted = "a layer whose state is null must have lazy, the options of its state";
    throw wrongKind(action, wanted, lazy);
  }
  const drawing = ["weightInit", "random"].find((name) => name in lazy);
  if (drawing !== undefined) {
    throw new TypeError(
      `Cannot ${action} as the weight of a lazy layer must begin as 1, so that it is plain data ` +
        `and equal on all ranks: current options hold ${drawing}`,
    );
  }
  firstState(1, lazy, action);
}

/** Checks that a batch has a rank that the layer takes. */
export function checkRank(kind: LayerKind, shape: readonly number[], action: string): void {
  const [least, most, called] = RANKS[kind];
  if (!Array.isArray(shape) || (shape.length >= least && shape.length <= most)) return;
  const wanted = `${kind} expected ${called} input (got ${shape.length}D input)`;
  throw wrongKind(action, wanted, shape, "shape");
}
/** Makes the error for a layer that must have a state and has none. */
export function lazyError({ kind }: { readonly kind: LayerKind }, action: string): TypeError {
  const how = "by applyLayer or materializeLayer";
  return refused(
    action,
    `a lazy ${kind} must have seen its channels first, ${how}`,
    "state is null",
  );
}

/** Checks all fields of a layer but its state. */
export function checkSettings(
  { kind, processGroup, activation, ghost, renorm, frozen }: LayerSettings,
  action: string,
): void {
  checkOneOf(kind, Object.keys(RANKS), "kind", action);
  if (processGroup !== null && (typeof processGroup !== "string" || processGroup === "")) {
    const wanted = "processGroup must be the name of a group, or null for none";
    throw wrongKind(action, wanted, processGroup);
  }
  checkActivation(activation, action);
  checkOneOf(frozen, ["statistics", "all", undefined], "frozen", action);
  if (ghost !== undefined) checkGhost(ghost, action);
  if (renorm === undefined) return;
  checkBounds(renorm, action);
  if (ghost === undefined) return;
  throw refused(action, "a layer may have ghost or renorm", "one has both");
}
