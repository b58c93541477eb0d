/**
 * Which entries a model has in a state dict, in PyTorch's names and order, and what stands behind each.
 *
 * @module
 */

import { isTensor } from "../../data_parallel/trees.ts";
import type { Device } from "../../device.ts";
import {
  type BatchNormLayer,
  checkLayer,
  claimsLayer,
  isLazy,
  type LazyBatchNormLayer,
  withState,
} from "../../layers/layer.ts";
import { called, isRecord, placesOf } from "../../layers/model.ts";
import { type BatchNormState, checkState, initBatchNorm } from "../../state.ts";
import { checkTensor, describe, type DType, type Format, type Tensor } from "../../tensor.ts";
import { quote } from "../words.ts";

/** One array of a node. */
export interface Slot<A> {
  /** What its names end with, such as `weight`; `""` where the node is nothing but this array. */
  readonly suffix: string;
  /** The array; null in a lazy layer, which has none yet. */
  readonly array: A | null;
  /** Its logical shape; null in a lazy layer, which has still to learn its channels. */
  readonly shape: readonly number[] | null;
  readonly dtype: DType;
  readonly format: Format;
}

/** What a node is put together from. */
export interface Ingredients<A> {
  /** An array for each slot. */
  readonly arrays: readonly A[];
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

/** A name in a state dict, and what it names. */
export interface Entry<A> {
  readonly name: string;
  readonly part: Part<A>;
  /** Index of the slot, or the counter. */
  readonly slot: number | "counter";
}

const COUNTER = "num_batches_tracked";

/** PyTorch's names and ours, in the order of its state dicts: parameters, then buffers. */
const VECTORS = [
  ["weight", "weight"],
  ["bias", "bias"],
  ["running_mean", "runningMean"],
  ["running_var", "runningVar"],
] as const;

/** A model taken apart. */
export interface Contents<A> {
  /** Its nodes, each once. */
  readonly parts: readonly Part<A>[];
  /** Its names in the order of the tree; those of a node that stands at several paths at each of them. */
  readonly entries: readonly Entry<A>[];
}

/**
 * Finds the nodes of a model and their entries.
 *
 * @param device the device that its arrays live on
 * @param model a tree of plain records and arrays
 * @param action what the caller was about to do, for the message
 * @returns its nodes and names
 * @throws TypeError or RangeError that names the path of what does not belong, or a name that two nodes would have
 */
export function contentsOf<A>(
  device: Device<A>,
  model: unknown,
  action: string,
): Contents<A> {
  const isNode = (value: object): value is object => device.owns(value) || claims(value);
  const parts = new Map<object, Part<A>>();
  const entries = new Map<string, Entry<A>>();
  const paths = new Map<string, string>();
  for (const [node, path] of placesOf(model, isNode, action)) {
    const part = parts.get(node) ?? partOf(device, node, path, action);
    parts.set(node, part);
    for (const [suffix, slot] of suffixesOf(part)) {
      const name = [path, suffix].filter((text) => text !== "").join(".");
      const other = entries.get(name);
      if (other !== undefined && other.part !== part) {
        throw new TypeError(
          `Cannot ${action} as every entry must have a name of its own: current name ` +
            `${quote(name)} is that of two nodes, at ${called(paths.get(name) ?? "")} ` +
            `and at ${called(path)}`,
        );
      }
      entries.set(name, { name, part, slot });
      paths.set(name, path);
    }
  }
  return { parts: [...parts.values()], entries: [...entries.values()] };
}

function suffixesOf<A>({ slots, counter }: Part<A>): readonly [string, number | "counter"][] {
  return [
    ...slots.map(({ suffix }, i): [string, number] => [suffix, i]),
    ...(counter === null ? [] : [[COUNTER, "counter"] as [string, "counter"]]),
  ];
}

/** Whether a value says that it is a node of ours; whether it is a sound one is another question. */
function claims(value: object): boolean {
  return isRecord(value) &&
    (isTensor(value) || claimsLayer(value) || claimsState(value) || claimsArray(value));
}

function claimsState(value: object): value is BatchNormState<unknown> {
  return "numFeatures" in value && "runningMean" in value && "numBatchesTracked" in value;
}

/** An array that was freed or is another device's: it must not pass for a branch that has nothing in it. */
function claimsArray(value: object): boolean {
  const { device, ...rest } = value as { readonly device?: unknown };
  return typeof device === "string" &&
    Object.values(rest).every((member) => typeof member === "function");
}

function partOf<A>(device: Device<A>, node: object, path: string, action: string): Part<A> {
  const here = `${action} at ${called(path)}`;
  const inside = (): Inside<A> => {
    if (device.owns(node) || claimsArray(node)) return arrayPart(device, node as A, here);
    if (claimsLayer(node)) {
      return layerPart(device, node as BatchNormLayer<A> | LazyBatchNormLayer, here);
    }
    if (isTensor(node)) return tensorPart(device, node as Tensor<A>, here);
    checkState(device, node as BatchNormState<A>, here);
    return statePart(node as BatchNormState<A>, (state) => state);
  };
  return { ...inside(), node, path };
}

/** What is in a node, wherever that stands. */
type Inside<A> = Omit<Part<A>, "node" | "path">;

function arrayPart<A>(device: Device<A>, array: A, here: string): Inside<A> {
  const { length, dtype } = describe(device, array, here, "the array");
  return {
    ...{ counter: null, first: null },
    slots: [{ ...vector(""), array, shape: [length], dtype }],
    rebuild: ({ arrays: [other] }) => other as object,
  };
}

function tensorPart<A>(device: Device<A>, tensor: Tensor<A>, here: string): Inside<A> {
  checkTensor(device, tensor, here);
  const { data, shape, dtype, format } = tensor;
  return {
    ...{ counter: null, first: null },
    slots: [{ suffix: "", array: data, shape, dtype, format }],
    rebuild: ({ arrays: [other] }) => Object.freeze({ ...tensor, data: other }),
  };
}

function layerPart<A>(
  device: Device<A>,
  layer: BatchNormLayer<A> | LazyBatchNormLayer,
  here: string,
): Inside<A> {
  checkLayer(layer, here);
  const rebuild = (state: BatchNormState<A>) => withState<A, typeof layer>(layer, state);
  if (isLazy(layer)) return lazyPart(layer, rebuild, here);
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
    rebuild: ({ arrays, counter }) => rebuild(stateOf(state, { arrays, counter })),
  };
}

function lazyPart<A>(
  { lazy }: LazyBatchNormLayer,
  rebuild: (state: BatchNormState<A>) => object,
  here: string,
): Inside<A> {
  // A look at the options is not to take numbers from the caller's generator.
  const { random } = lazy;
  const still = { ...lazy, random: typeof random === "function" ? () => 0 : random };
  const like = atPath(() => initBatchNorm(HOST, 1, still), here);
  const first = (channels: number) =>
    vectorsOf(initBatchNorm(HOST, channels, lazy)).map(([, , values]) => values);
  return {
    slots: vectorsOf(like).map(([suffix]) => ({ ...vector(suffix), array: null, shape: null })),
    counter: like.runningMean === null ? null : 0,
    first,
    rebuild: ({ channels, ...ingredients }) =>
      rebuild(stateOf({ ...like, numFeatures: channels ?? 1 }, ingredients)),
  };
}

function vector(suffix: string): Pick<Slot<unknown>, "suffix" | "dtype" | "format"> {
  return { suffix, dtype: "float32", format: "channelsFirst" };
}

/** The vectors that a state has, in PyTorch's order. */
function vectorsOf<V>(
  state: BatchNormState<V>,
): readonly (readonly [suffix: string, field: string, array: V])[] {
  return VECTORS.flatMap(([suffix, field]) => {
    const array = state[field];
    return array === null ? [] : [[suffix, field, array] as const];
  });
}

/** A state like another, with other vectors where that one has some. */
function stateOf<A>(
  like: BatchNormState<unknown>,
  { arrays, counter }: Omit<Ingredients<A>, "channels">,
): BatchNormState<A> {
  const vectors = vectorsOf(like).map(([, field], i) => [field, arrays[i]]);
  const numBatchesTracked = counter ?? like.numBatchesTracked;
  return Object.freeze({ ...like, ...Object.fromEntries(vectors), numBatchesTracked });
}

/** The host as far as `initBatchNorm` needs a device: an array that is put there is what it was. */
const HOST = { upload: (values) => values } as Pick<
  Device<Float32Array>,
  "upload"
> as Device<Float32Array>;

/** Runs a check whose message does not know where it is. */
function atPath<R>(check: () => R, here: string): R {
  try {
    return check();
  } catch (cause) {
    if (!(cause instanceof TypeError || cause instanceof RangeError)) throw cause;
    const Kind = cause instanceof RangeError ? RangeError : TypeError;
    throw new Kind(`Cannot ${here} with its lazy options: ${cause.message}`, { cause });
  }
}
