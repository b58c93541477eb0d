/** The nodes of a model that have arrays, taken apart and put together again. */

import { claimsArray, isTensor } from "../../data_parallel/trees.ts";
import type { Device } from "../../device.ts";
import { type AnyLayer, checkLayer, claimsLayer } from "../../layers/check_layer.ts";
import { type LazyBatchNormLayer, withState } from "../../layers/layer.ts";
import { called, checkRecord } from "../../tree.ts";
import { checkState, claimsState } from "../../check_state.ts";
import { type BatchNormState, firstState } from "../../state.ts";
import { checkTensor, describe, type DType, type Format, type Tensor } from "../../tensor.ts";
import { refused, shown } from "../../words.ts";

/** One array of a node. */
export interface Slot<A> {
  /** What its names end with, such as `weight`; `""` where the node is nothing but this array. */
  readonly suffix: string;
  /** The array; null in a lazy layer, which has none yet, and on the host. */
  readonly array: A | null;
  /** The elements of an array on the host; null for one of the device. */
  readonly host: Float32Array | null;
  /** Its logical shape; null in a lazy layer, which has still to learn its channels. */
  readonly shape: readonly number[] | null;
  readonly dtype: DType;
  readonly format: Format;
}

/** What a node is put together from. */
export interface Ingredients<A> {
  /** An array for each slot, of the device or the host as the slot's own. */
  readonly arrays: readonly (A | Float32Array)[];
  /** Batches that its running statistics have seen; null for those that it counts already. */
  readonly counter: number | null;
  /** Channels of a layer that was lazy; null for any other node. */
  readonly channels: number | null;
}

/** A node of a model with entries in a state dict. */
export interface Part<A> {
  readonly node: object;
  /** The first of the paths that it stands at. */
  readonly path: string;
  readonly slots: readonly Slot<A>[];
  /** Batches that its running statistics have seen; null where it counts none. */
  readonly counter: number | null;
  /** For a lazy layer: first values of its vectors, given its channels. Else null. */
  readonly first: ((channels: number) => readonly Float32Array[]) | null;
  /** Makes the same node of other arrays, frozen. */
  readonly rebuild: (ingredients: Ingredients<A>) => object;
}

/** PyTorch's names and ours, in the order of its state dicts: parameters, then buffers. */
const VECTORS = [
  ["weight", "weight"],
  ["bias", "bias"],
  ["running_mean", "runningMean"],
  ["running_var", "runningVar"],
] as const;

/** Tells whether a value says that it is a node of ours; whether it is a sound one is another question. */
export function claimsNode(value: object): boolean {
  return ArrayBuffer.isView(value) || claimsTensor(value) || claimsLayer(value) ||
    claimsState(value) || claimsArray(value);
}

function claimsTensor(value: object): boolean {
  // Not value.data: a getter is not to be called.
  const data = Object.getOwnPropertyDescriptor(value, "data")?.value;
  return isTensor(value) && typeof data === "object" && data !== null;
}

/** Takes a node apart. */
export function partOf<A>(device: Device<A>, node: object, path: string, action: string): Part<A> {
  const here = `${action} at ${called(path)}`;
  const inside = (): Inside<A> => {
    if (node instanceof Float32Array) {
      return arrayPart<A>({ ...vector(""), array: null, host: node, shape: [node.length] });
    }
    if (ArrayBuffer.isView(node)) {
      const wanted = "an array on the host must be a Float32Array to have a place in a state dict";
      throw refused(here, wanted, `value is ${shown(node)}; leave it out by only`);
    }
    if (device.owns(node) || claimsArray(node)) {
      const { length, dtype } = describe(device, node as A, here, "the array");
      return arrayPart({ ...vector(""), array: node as A, shape: [length], dtype });
    }
    checkRecord(node, here);
    if (claimsLayer<A>(node)) return layerPart(device, node, here);
    if (isTensor(node)) return tensorPart(device, node as Tensor<A>, here);
    checkState(device, node as BatchNormState<A>, here);
    return statePart(node as BatchNormState<A>, (state) => state);
  };
  return { ...inside(), node, path };
}

type Inside<A> = Omit<Part<A>, "node" | "path">;

/** A node that is nothing but one array; it may be more around another one. */
function arrayPart<A>(
  slot: Slot<A>,
  around = (other: A | Float32Array): object => other as object,
): Inside<A> {
  return {
    slots: [slot],
    counter: null,
    first: null,
    rebuild: ({ arrays: [other] }) => around(other),
  };
}

function tensorPart<A>(device: Device<A>, tensor: Tensor<A>, here: string): Inside<A> {
  checkTensor(device, tensor, here);
  const { data: array, shape, dtype, format } = tensor;
  return arrayPart(
    { suffix: "", array, host: null, shape, dtype, format },
    (data) => Object.freeze({ ...tensor, data, shape: Object.freeze([...shape]) }),
  );
}

function layerPart<A>(device: Device<A>, layer: AnyLayer<A>, here: string): Inside<A> {
  checkLayer(layer, here);
  const rebuild = (state: BatchNormState<A>) => withState<A, typeof layer>(layer, state);
  if (layer.state === null) return lazyPart(layer, rebuild, here);
  checkState(device, layer.state, here);
  return statePart(layer.state, rebuild);
}

function statePart<A>(
  state: BatchNormState<A>,
  rebuild: (state: BatchNormState<A>) => object,
): Inside<A> {
  const shape = [state.numFeatures];
  return {
    slots: vectorsOf(state).map(([suffix, , array]) => ({ ...vector(suffix), array, shape })),
    counter: state.runningMean === null ? null : state.numBatchesTracked,
    first: null,
    rebuild: (ingredients) => rebuild(stateOf(state, ingredients)),
  };
}

function lazyPart<A>(
  { lazy }: LazyBatchNormLayer,
  rebuild: (state: BatchNormState<A>) => object,
  here: string,
): Inside<A> {
  const like = firstState(1, lazy, here);
  return {
    slots: vectorsOf(like).map(([suffix]) => ({ ...vector(suffix), array: null, shape: null })),
    counter: like.runningMean === null ? null : 0,
    first: (channels) => vectorsOf(firstState(channels, lazy, here)).map(([, , values]) => values),
    rebuild: (ingredients) =>
      rebuild(stateOf({ ...like, numFeatures: ingredients.channels ?? 1 }, ingredients)),
  };
}

function vector(suffix: string) {
  return { suffix, host: null, dtype: "float32", format: "channelsFirst" } as const;
}

function vectorsOf<V>(state: BatchNormState<V>) {
  return VECTORS.flatMap(([suffix, field]) => {
    const array = state[field];
    return array === null ? [] : [[suffix, field, array] as const];
  });
}

/** A state like another, with other vectors where that one has some. */
function stateOf<A>(
  like: BatchNormState<unknown>,
  { arrays, counter }: Ingredients<A>,
): BatchNormState<A> {
  const vectors = vectorsOf(like).map(([, field], i) => [field, arrays[i]]);
  const numBatchesTracked = counter ?? like.numBatchesTracked;
  return Object.freeze({ ...like, ...Object.fromEntries(vectors), numBatchesTracked });
}
