/** A whole model for deployment: every batch norm folded into the linear layer or convolution before it. */

import { claimsState } from "../check_state.ts";
import { isTensor } from "../data_parallel/trees.ts";
import type { Device } from "../device.ts";
import { region } from "../ownership.ts";
import { fromRowMajor, toRowMajor } from "../row_major.ts";
import { type BatchNormState, stateFromHost, stateToHost } from "../state.ts";
import { type Tensor, tensor, toArray } from "../tensor.ts";
import { quote, shown, wrongKind } from "../words.ts";
import { type AnyLayer, claimsLayer, lazyError, RANKS } from "./check_layer.ts";
import { folded, type LinearLayer } from "./fold.ts";
import { type BatchNormLayer, withState } from "./layer.ts";
import { called, nodesOf, placesOf } from "../tree.ts";
import { checkChoice, type LayerChoice, layersOf, replaceNodes } from "./replace.ts";

/** Options of {@linkcode foldModel}. */
export interface FoldModelOptions extends LayerChoice {
  /**
   * Tells the path of the linear layer or convolution directly before the batch norm at a path: what follows what is in
   * nobody's tree.
   */
  readonly into: (path: string) => string;
  /**
   * Tells the rank of the batches of the batch norm at a path: asked for where it is behind a linear layer, whose outputs
   * are the channels of batches (N, C) alone, and its kind takes others too. `() => 2` where all are such batches.
   */
  readonly inputRank?: (path: string) => number;
}

/** A linear layer or convolution of a model: a plain record. Fields of its own stay with it. */
export interface LinearNode<A> {
  /** Its weights, with the logical shape of a {@linkcode LinearLayer}; or on the host, then with `shape`. */
  readonly weight: Tensor<A> | Float32Array;
  /** Offset per output channel, C values; null for none, which folding makes one of. */
  readonly bias: Tensor<A> | A | Float32Array | null;
  /** Shape of weights on the host. */
  readonly shape?: readonly number[];
  /** Whether the output channels are axis 1 of the weight; false by default. */
  readonly transposed?: boolean;
}

const ACTION = "fold the model";

/**
 * Folds the batch norms of a model into the linear layers or convolutions directly before them, as `foldBatchNorm` does
 * one: for evaluation alone.
 *
 * What is left in a batch norm's place is the identity (mean 0, variance 1, eps 0, no weight and bias), with the layer's
 * activation and all other fields: so the program that evaluates the model gives the same numbers as before, to rounding,
 * and where it is written anew for deployment it leaves these layers out, but for their activation.
 *
 * @param device where the model lives; weights and states are read back
 * @param model a tree of plain records and arrays with layers as of `initLayer` and linear layers
 * ({@linkcode LinearNode}) in it; it is not changed
 * @param options `into`: the path of the linear layer of each batch norm; `inputRank`: the rank of its batches, where
 * neither its kind nor a convolution before it tells; `only`: which batch norms
 * @returns a tree of the same type, frozen where it is new, that owns its folded weights, biases and identities
 * @throws (rejects with) TypeError or RangeError that names the path of a batch norm without running statistics, whose
 * linear layer is not there, does not fit (see `foldBatchNorm`), stands at several paths or is that of another one too; of a lazy layer, of a cycle,
 * of a layer that stands at several paths of which `only` takes some; where there is no layer at all
 *
 * @example y = 3x, then 2y
 * ```ts
 * import { foldModel, initLayer, mapLayers, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = initLayer(device, "batchNorm1d", 1, { eps: 0, activation: "relu" });
 * const weight = device.upload(Float32Array.of(2));
 * const norm = mapLayers(fresh, (layer) => ({ ...layer, state: { ...layer.state, weight } }));
 * const model = { stem: { linear: { weight: tensor(device, [3], [1, 1]), bias: null }, norm } };
 * const { stem } = await foldModel(device, model, { into: () => "stem.linear", inputRank: () => 2 });
 * assert.deepEqual(await toArray(device, stem.linear.weight), Float32Array.of(6));
 * ```
 */
export async function foldModel<A, T>(
  device: Device<A>,
  model: T,
  options: FoldModelOptions,
): Promise<T> {
  const { only, into, inputRank } = checkChoice(options, ACTION, ["into", "inputRank"]);
  if (typeof into !== "function") {
    const wanted =
      "into must be a function from a batch norm's path to that of the layer before it";
    throw wrongKind(ACTION, wanted, into);
  }
  if (inputRank !== undefined && typeof inputRank !== "function") {
    const wanted =
      "inputRank must be a function from a batch norm's path to the rank of its batches";
    throw wrongKind(ACTION, wanted, inputRank);
  }
  layersOf<A>(model, ACTION, options);
  const nodes = nodesOf(model, isNode<A>, ACTION);
  const pairs = pairsOf<A>(model, only, into);
  return await region(device, async (scope) => {
    const replacements = new Map<object, object>(
      (await Promise.all(
        [...pairs.values()].map((pair) => foldPair(scope, pair, inputRank)),
      )).flat(),
    );
    return replaceNodes<T, Node<A>>(
      model,
      nodes,
      (path) => pairs.has(path) || only(path),
      ACTION,
      (node) => replacements.get(node) as Node<A> | undefined ?? node,
    );
  });
}

type Node<A> = AnyLayer<A> | LinearNode<A>;
type Part<A> = Tensor<A> | A | Float32Array;
type Values = Float32Array<ArrayBuffer>;

function isNode<A>(value: object): value is Node<A> {
  return claimsLayer<A>(value) || isLinear<A>(value);
}

function isLinear<A>(value: object): value is LinearNode<A> {
  if (claimsState(value)) return false;
  // Not value.weight: a getter is not to be called.
  const weight = Object.getOwnPropertyDescriptor(value, "weight")?.value;
  return weight instanceof Float32Array ||
    (typeof weight === "object" && weight !== null && isTensor(weight));
}

interface Pair<A> {
  readonly layer: BatchNormLayer<A>;
  readonly path: string;
  readonly linear: LinearNode<A>;
}

function pairsOf<A>(
  model: unknown,
  only: (path: string) => boolean,
  into: (path: string) => string,
): ReadonlyMap<string, Pair<A>> {
  const places = new Map(placesOf(model, isNode<A>, ACTION).map(([node, path]) => [path, node]));
  const pairs = new Map<string, Pair<A>>();
  for (const [path, layer] of places) {
    if (!claimsLayer<A>(layer) || !only(path)) continue;
    const here = `${ACTION} at ${called(path)}`;
    if (layer.state === null) throw lazyError(layer, here);
    const before = into(path);
    const linear = places.get(before);
    const refuse = (wanted: string, came: string): never => {
      throw new TypeError(`Cannot ${here} as ${wanted}: current ${came}`);
    };
    if (linear === undefined || claimsLayer<A>(linear)) {
      const linears = [...places].filter(([, node]) => isLinear(node)).slice(0, 8);
      const known = linears.map(([at]) => quote(at)).join(", ") || "none";
      return refuse(
        "into must tell the path of a layer { weight, bias }",
        `path is ${shown(before)}, those that there are begin with ${known}`,
      );
    }
    const there = `the layer at ${called(before)}`;
    const again = [...places].find(([at, node]) => node === linear && at !== before);
    const user = pairs.get(before);
    if (again !== undefined || user !== undefined) {
      const other = again ? `stands at ${again[0]} too` : `is that of ${user?.path} too`;
      refuse(`${there} must be this batch norm's alone`, `one ${other}`);
    }
    if (!("bias" in linear)) {
      refuse(
        `${there} must have a bias, or null for none, so that whoever runs it adds the one that ` +
          `folding makes`,
        `one holds ${Object.keys(linear).join(", ")}`,
      );
    }
    pairs.set(before, { layer, path, linear });
  }
  return pairs;
}

async function foldPair<A>(
  device: Device<A>,
  { layer, path, linear }: Pair<A>,
  inputRank: FoldModelOptions["inputRank"],
): Promise<readonly (readonly [old: object, node: object])[]> {
  const { weight, bias, shape = [], transposed } = linear;
  const [state, ownWeight, ownBias] = await Promise.all([
    stateToHost(device, layer.state),
    toHost(device, weight),
    bias === null ? null : toHost(device, bias),
  ]);
  const onHost = weight instanceof Float32Array;
  const extents = onHost ? shape : weight.shape;
  const host = { weight: ownWeight, shape: extents, bias: ownBias, transposed };
  const here = `${ACTION} at ${called(path)}`;
  const rank = rankBehind(host, layer, () => inputRank?.(path), here);
  const both = folded(state, host, rank, here);
  const place = bias ?? (onHost ? both.bias : null);
  const offset = both.bias as Values;
  const node = Object.freeze({
    ...linear,
    weight: partLike(device, weight, both.weight as Values),
    bias: place === null ? device.upload(offset) : partLike(device, place, offset),
  });
  const identity = stateFromHost(device, identityLike(state));
  return [[layer, withState<A, typeof layer>(layer, identity)], [linear, node]];
}

/** The rank of a batch norm's batches: its kind's, or a convolution's, or else what its user tells. */
function rankBehind(
  { shape }: LinearLayer,
  layer: BatchNormLayer<unknown>,
  told: () => number | undefined,
  here: string,
): number {
  const [least, most] = RANKS[layer.kind];
  // A convolution's outputs are axis 1 of batches of its own rank, and it takes no others.
  if (least === most || shape.length > 2) return Math.min(Math.max(shape.length, least), most);
  const rank = told();
  if (rank !== undefined) return rank;
  const why = `which a ${layer.kind} behind a linear layer does not`;
  throw wrongKind(here, `inputRank must tell the rank of its batches, ${why}`, rank);
}

function identityLike(state: BatchNormState<Float32Array>): BatchNormState<Float32Array> {
  const vector = (value: number) => new Float32Array(state.numFeatures).fill(value);
  const statistics = { runningMean: vector(0), runningVar: vector(1) };
  return { ...state, ...statistics, eps: 0, weight: null, bias: null };
}

/** The numbers of a layer's weight or bias in row-major order. */
async function toHost<A>(device: Device<A>, part: Part<A>): Promise<Float32Array> {
  if (part instanceof Float32Array) return part;
  if (!isTensor(part as object)) return await device.download(part as A);
  return toRowMajor(await toArray(device, part as Tensor<A>), part as Tensor<A>);
}

/** Other numbers, where and as a layer's own were. */
function partLike<A>(device: Device<A>, old: Part<A>, values: Values): Part<A> {
  if (old instanceof Float32Array) return values;
  if (!isTensor(old as object)) return device.upload(values, device.describe(old as A).dtype);
  const { shape, dtype, format } = old as Tensor<A>;
  return tensor(device, fromRowMajor(values, { shape, format }), shape, { dtype, format });
}
