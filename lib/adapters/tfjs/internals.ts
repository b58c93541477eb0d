/**
 * What the adapter relies on of TensorFlow.js that its documentation does not promise, and the checks of it: written for
 * 4.22. All of it stands here, so that a TensorFlow.js that differs gets a sentence and not a wrong number.
 *
 * - A layer computes by its method `call`, which an own property of the instance replaces; a batch norm has the fields of
 *   {@linkcode Norm}.
 * - A sequential model trains by a model within, `model`, which `compile` makes anew.
 * - `makeTrainFunction` makes what each batch is given to, and it calls `optimizer.computeGradients` once; `testLoop` is
 *   what all evaluation of tensors goes through.
 * - The engine records operations on `state.activeTape` between `startTape` and `endTape`, and holds `saved` tensors of each;
 *   a gradient that is computed while `isTapeOn` is to be differentiated itself.
 * - `state.tensorInfo` tells the backend of a tensor, and `registry` the backends that there are.
 * - A layer's `inboundNodes` are its places in a graph; `lossFunctions`, `metricsTensors`, `calculateLosses` and
 *   `collectedTrainableWeights` are what a training step is made of, `standardizeUserDataXY` checks a batch.
 * - The webgpu backend has `device`, `tensorMap` names the buffer of a tensor, which `uploadToGPU` makes and which is as
 *   long as the tensor, `submitQueue` submits what `commandEncoder` has, and `refCount` tells who shares a buffer.
 *
 * @module
 */

import { shown } from "../../words.ts";
import type { TensorFlow, TensorFlowLike, TfModel, TfTensor } from "./framework.ts";
import type { Container, Layer, LayersModel, Norm } from "./model.ts";

/** Takes TensorFlow.js as it was handed over, if it has what is relied on. */
export function tensorFlowOf(tf: TensorFlowLike, action: string): TensorFlow {
  const { tidy, customGrad, engine } = (tf ?? {}) as Partial<TensorFlowLike>;
  if ([tidy, customGrad, engine].every((member) => typeof member === "function")) {
    const { startTape, endTape, isTapeOn, state } = tf.engine() as Partial<Engine>;
    const functions = [startTape, endTape, isTapeOn];
    if (functions.every((member) => typeof member === "function") && state) {
      return tf as unknown as TensorFlow;
    }
    throw differs(action, "engine() with startTape, endTape, isTapeOn and state");
  }
  throw new TypeError(
    `Cannot ${action} as the first argument must be TensorFlow.js, all that @tensorflow/tfjs exports: ` +
      `current value is ${shown(tf)}`,
  );
}

/** The model that trains: of a sequential one, the model within; throws for what is none, or has no optimizer. */
export function fittedOf(model: TfModel, action: string): LayersModel {
  checkModel(model, action);
  const given = model as unknown as LayersModel;
  const { optimizer, lossFunctions } = given.model ?? given;
  if (!optimizer || !lossFunctions) {
    throw new TypeError(
      `Cannot ${action} as it must be compiled: current one has no optimizer; call its compile({ optimizer, loss }) first`,
    );
  }
  const fitted = given.model ?? given;
  for (const name of ["makeTrainFunction", "testLoop", "calculateLosses"] as const) {
    if (typeof fitted[name] !== "function") throw differs(action, `a model with ${name}()`);
  }
  if (typeof optimizer.computeGradients !== "function") {
    throw differs(action, "an optimizer with computeGradients()");
  }
  return fitted;
}

/** Checks that a value is a model of layers that has its weights. */
export function checkModel(model: TfModel, action: string): void {
  const { layers, getWeights, toJSON, outputs } = (model ?? {}) as Partial<
    TfModel & Pick<Container, "outputs">
  >;
  if (!Array.isArray(layers) || typeof getWeights !== "function" || typeof toJSON !== "function") {
    throw new TypeError(
      `Cannot ${action} as it must be a tf.LayersModel or a tf.Sequential: current value is ${
        shown(model)
      }${then(model)}`,
    );
  }
  if (Array.isArray(outputs) && outputs.length > 0) return;
  throw new TypeError(
    `Cannot ${action} as its weights must be there: current one has no input shape yet; ` +
      `give its first layer an inputShape`,
  );
}

function then(model: unknown): string {
  return typeof (model as Partial<PromiseLike<unknown>> | null)?.then === "function"
    ? "; it is a promise: await it first"
    : "";
}

/** The batch norm that a layer is, or null. */
export function normOf(layer: Layer): Norm | null {
  return layer.getClassName() === "BatchNormalization" ? layer as Norm : null;
}

/** Checks that a batch norm has the fields that it is synchronised by. */
export function checkNorm(norm: Norm, action: string): void {
  const { axis, epsilon, momentum, movingMean, movingVariance } = norm;
  const numbers = [axis, epsilon, momentum].every((value) => typeof value === "number");
  const weights = [movingMean, movingVariance].every((weight) =>
    typeof weight?.read === "function" && typeof weight.write === "function"
  );
  if (numbers && weights && typeof norm.call === "function") return;
  throw differs(
    action,
    "a BatchNormalization with axis, epsilon, momentum, movingMean and movingVariance",
  );
}

/** The graph of layers that a layer is, or null; of a sequential model, that of the model within. */
export function graphOf(layer: Layer): Container | null {
  const { layers, model } = layer as Partial<LayersModel>;
  return layers ? (model ?? layer as Container) : null;
}

/** The layer that a TimeDistributed calls for each step of time, or null. */
export function timedIn(layer: Layer): Layer | null {
  return layer.getClassName() === "TimeDistributed"
    ? (layer as Partial<Holder>).layer ?? null
    : null;
}

/** The layers that a layer holds, each with the name of its place, in an order that all replicas share. */
export function partsOf(layer: Layer): readonly (readonly [place: string, part: Layer])[] {
  const { layers, layer: wrapped, forwardLayer, backwardLayer } = layer as Partial<Holder>;
  const named = [["layer", wrapped], ["forward", forwardLayer], [
    "backward",
    backwardLayer,
  ]] as const;
  return [
    ...(layers ?? []).map((part, i) => [`${i}`, part] as const),
    ...named.filter((entry): entry is [typeof entry[0], Layer] => entry[1] !== undefined),
  ];
}

/** The ways in which a layer holds others: a container, a wrapper, a bidirectional one. */
interface Holder {
  readonly layers: readonly Layer[];
  readonly layer: Layer;
  readonly forwardLayer: Layer;
  readonly backwardLayer: Layer;
}

/** A batch norm and its place in a model, `"2/layer/0"`. */
export interface PlacedNorm {
  readonly norm: Norm;
  readonly place: string;
}

/** The batch norms within a layer, itself included, each once, at the first of its places. */
export function normsIn(root: Layer): readonly PlacedNorm[] {
  const seen = new Set<Layer>();
  const within = (layer: Layer, place: string): PlacedNorm[] => {
    if (seen.has(layer)) return [];
    seen.add(layer);
    const norm = normOf(layer);
    if (norm) return [{ norm, place }];
    return partsOf(layer).flatMap(([name, part]) =>
      within(part, place ? `${place}/${name}` : name)
    );
  };
  return within(root, "");
}

/** What says that TensorFlow.js is not the one that this was written for. */
function differs(action: string, wanted: string): TypeError {
  return new TypeError(
    `Cannot ${action} as TensorFlow.js must have ${wanted}: the current one does not; this adapter was written for 4.22`,
  );
}

/** An operation on the tape. */
export interface TapeNode {
  readonly kernelName: string;
  readonly inputs: Readonly<Record<string, TfTensor>>;
  readonly outputs: readonly TfTensor[];
  readonly saved: readonly TfTensor[];
  readonly gradient?: (
    dys: readonly (TfTensor | null)[],
  ) => Readonly<Record<string, () => TfTensor>>;
}

interface Engine {
  readonly startTape: () => void;
  readonly endTape: () => void;
  readonly isTapeOn: () => boolean;
  readonly state: {
    activeTape: TapeNode[] | null;
    /** Which backend has the elements of a tensor. */
    readonly tensorInfo?: { get(dataId: object): { readonly backend: object } | undefined };
  };
  /** The backends that there are. */
  readonly registry?: Readonly<Record<string, object>>;
}

/** Checks that a tensor was not disposed of, nor the backend that has its elements. */
export function checkAlive(tf: TensorFlow, tensor: TfTensor, name: string, action: string): void {
  if (tensor.isDisposed) {
    throw new TypeError(
      `Cannot ${action} as ${name} must be alive: current tensor was disposed of; keep it by tf.keep`,
    );
  }
  const { state, registry = {} } = tf.engine() as Engine;
  const backend = state.tensorInfo?.get(tensor.dataId)?.backend;
  if (backend === undefined || Object.values(registry).includes(backend)) return;
  throw new TypeError(
    `Cannot ${action} as ${name} must lie on a backend that is there: current tensor's was removed; ` +
      `make it anew, on "${tf.getBackend()}"`,
  );
}

/** Whether tfjs records operations now, so that what comes of them will be differentiated. */
export function isRecording(tf: TensorFlow): boolean {
  return (tf.engine() as Engine).isTapeOn();
}

/** Runs a body with a tape of its own, whose nodes are handed over even where the body throws. */
export function recordOn<T>(tf: TensorFlow, body: () => T, nodes: TapeNode[]): T {
  const engine = tf.engine() as Engine;
  engine.startTape();
  try {
    return body();
  } finally {
    engine.endTape();
    nodes.push(...engine.state.activeTape ?? []);
    engine.state.activeTape = null;
  }
}

/** tfjs's webgpu backend. */
export interface GpuBackend {
  readonly gpuDevice: object;
  /** The buffer of a tensor, which its elements fill. */
  readonly bufferOf: (dataId: object) => object;
  /** Submits what tfjs has put down so far. */
  readonly submit: () => void;
  /** How many tensors share their elements. */
  readonly references: (dataId: object) => number;
  /** Whether tfjs still computes on it. */
  readonly isCurrent: () => boolean;
}

interface WebGpuBackend {
  readonly device: object;
  readonly disposed: boolean;
  readonly commandEncoder: object | null;
  endComputePassEncoder(): void;
  submitQueue(): void;
  uploadToGPU(dataId: object): void;
  refCount(dataId: object): number;
  readonly tensorMap: { get(dataId: object): { readonly resource: object } };
}

/** The webgpu backend of now; null for another one. */
export function gpuBackendOf(tf: TensorFlow): GpuBackend | null {
  const backend = tf.backend() as WebGpuBackend;
  if (typeof backend.submitQueue !== "function") return null;
  return Object.freeze<GpuBackend>({
    gpuDevice: backend.device,
    bufferOf: (dataId) => {
      backend.uploadToGPU(dataId);
      return backend.tensorMap.get(dataId).resource;
    },
    submit: () => {
      if (backend.commandEncoder === null) return;
      backend.endComputePassEncoder();
      backend.submitQueue();
    },
    references: (dataId) => backend.refCount(dataId),
    isCurrent: () => !backend.disposed && tf.backend() === backend,
  });
}

/** tfjs's wasm backend, as far as its memory is looked at. */
interface WasmBackend {
  typedArrayFromHeap(of: TfTensor): Float32Array | Int32Array | Uint8Array;
}

/**
 * The elements of a tensor for reading at once: where they lie on the wasm backend, whose memory may move with its next
 * operation, and elsewhere as `dataSync` gives them.
 */
export function elementsOf(tf: TensorFlow, of: TfTensor): Float32Array | Int32Array | Uint8Array {
  const backend = tf.backend() as Partial<WasmBackend>;
  if (tf.getBackend() !== "wasm" || typeof backend.typedArrayFromHeap !== "function") {
    return of.dataSync();
  }
  try {
    return backend.typedArrayFromHeap(of);
  } catch {
    return of.dataSync(); // Of another backend: tfjs knows where to look.
  }
}

/** A tensor of elements that lie in somebody's memory: the wasm backend copies them, others keep what they are given. */
export function tensorOf(
  tf: TensorFlow,
  elements: Float32Array,
  shape: readonly number[],
): TfTensor {
  return tf.tensor(tf.getBackend() === "wasm" ? elements : elements.slice(), shape);
}
