/**
 * What a record must have to be a layer, and a batch to be one for it.
 *
 * @module
 */

import { checkStateRecord } from "../check_state.ts";
import { firstState } from "../state.ts";
import { shown } from "../words.ts";
import type {
  BatchNormLayer,
  LayerKind,
  LayerSettings,
  LazyBatchNormLayer,
  LazyOptions,
} from "./layer.ts";

/** Ranks of the batches that a kind takes, and how PyTorch calls them. */
const RANKS: Readonly<Record<LayerKind, readonly [least: number, most: number, called: string]>> = {
  batchNorm1d: [2, 3, "2D or 3D"],
  batchNorm2d: [4, 4, "4D"],
  batchNorm3d: [5, 5, "5D"],
  batchNorm: [2, Infinity, "at least 2D"],
};

/**
 * Tells whether a node of a model says that it is one of ours.
 *
 * @param node a plain record
 * @returns whether its kind is one of the four, or it has the fields of a layer and another kind
 */
export function claimsLayer(node: object): node is { readonly kind: LayerKind } {
  // Not node.kind: a getter is not to be called.
  const kind = Object.getOwnPropertyDescriptor(node, "kind")?.value;
  return isKind(kind) || (kind !== undefined && "processGroup" in node && "state" in node);
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
          : `is ${shown(layer)}`
      }`,
    );
  }
  checkSettings(layer, action);
  if (layer.state === null) checkLazy(layer.lazy, action);
  else checkStateRecord(layer.state, action);
  const tracks = layer.state === null
    ? layer.lazy.trackRunningStats !== false
    : layer.state.runningMean !== null;
  if (layer.frozen !== undefined && !tracks) {
    throw new TypeError(
      `Cannot ${action} as a frozen layer must have running statistics to normalize with: ` +
        `current state tracks none`,
    );
  }
}

function checkLazy(lazy: LazyOptions, action: string): void {
  if (typeof lazy !== "object" || lazy === null || Array.isArray(lazy)) {
    throw new TypeError(
      `Cannot ${action} as a layer whose state is null must have lazy, the options of its state: ` +
        `current value is ${shown(lazy)}`,
    );
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
 * Tells which batches a layer takes.
 *
 * @param layer with its kind
 * @returns the least and the largest rank
 */
export function ranksOf(
  { kind }: { readonly kind: LayerKind },
): { readonly least: number; readonly most: number } {
  const [least, most] = RANKS[kind];
  return { least, most };
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

/**
 * Checks all fields of a layer but its state.
 *
 * @param settings the fields
 * @param action what the caller was about to do, for the message
 * @throws TypeError that says what does not fit
 */
export function checkSettings(
  { kind, processGroup, activation, frozen }: LayerSettings,
  action: string,
): void {
  const refuse = (name: string, wanted: string, value: unknown): never => {
    throw new TypeError(
      `Cannot ${action} as ${name} must be ${wanted}: current value is ${shown(value)}`,
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
