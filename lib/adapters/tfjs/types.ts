/**
 * What the adapter uses of TensorFlow.js, by structural types of its own: no source imports a framework.
 *
 * Members are written as methods, whose parameters TypeScript compares in both directions: the framework's functions ask for
 * its own classes, of which these types name a part. {@linkcode TensorFlowLike}, {@linkcode TfTensor} and {@linkcode TfModel}
 * are what callers hand over, and have public members alone; the rest is what `internals.ts` makes of a model that it has
 * checked.
 *
 * @module
 */

/** A tensor, `tf.Tensor`. */
export interface TfTensor {
  /** Unlike that of any other tensor. */
  readonly id: number;
  /** The extents. */
  readonly shape: readonly number[];
  /** What the elements are: `"float32"`, `"int32"`, `"bool"`. */
  readonly dtype: string;
  /** Number of elements. */
  readonly size: number;
  /** Where the elements are, which several tensors may share. */
  readonly dataId: object;
  /** Whether its memory was let go. */
  readonly isDisposed: boolean;
  /** Reads the elements. */
  data(): Promise<Float32Array | Int32Array | Uint8Array>;
  /** Reads the elements and holds up the thread. */
  dataSync(): Float32Array | Int32Array | Uint8Array;
  /** Makes another tensor of the same elements. */
  clone(): TfTensor;
  /** Lets the memory go. */
  dispose(): void;
}

/** Any operation of the framework on tensors. */
export type Operation = (...given: never[]) => TfTensor;

/** The framework: all that `@tensorflow/tfjs` exports, as far as it is used. */
export interface TensorFlowLike {
  /** What keeps the tape of operations and the memory. */
  engine(): object;
  /** The backend of now. */
  backend(): object;
  /** Its name. */
  getBackend(): string;
  /** Runs a body and disposes of what it does not return. */
  tidy(body: () => never): unknown;
  /** Disposes of tensors. */
  dispose(tensors: never): void;
  /** Makes an operation with a gradient of one's own. */
  customGrad(body: never): Operation;
  /** Layers from their description. */
  readonly models: { modelFromJSON(topology: never): Promise<TfModel> };
  /** Keeps a tensor past the end of `tidy`. */
  readonly keep: Operation;
  /** Makes a tensor of numbers. */
  readonly tensor: Operation;
  /** A tensor of zeros. */
  readonly zeros: Operation;
  /** A tensor of ones of the shape of another. */
  readonly onesLike: Operation;
  /** The same elements in another shape. */
  readonly reshape: Operation;
  /** Joins tensors along an axis. */
  readonly concat: Operation;
  /** A block of elements. */
  readonly slice: Operation;
  /** a + b. */
  readonly add: Operation;
  /** a - b. */
  readonly sub: Operation;
  /** a * b. */
  readonly mul: Operation;
  /** The square of each element. */
  readonly square: Operation;
  /** Sums along axes. */
  readonly sum: Operation;
  /** Means along axes. */
  readonly mean: Operation;
  /** (x - mean) / sqrt(variance + epsilon) * scale + offset, along the last axis. */
  readonly batchNorm2d: Operation;
}

/** The framework once it is checked, as the adapter calls it. */
export interface TensorFlow {
  engine(): object;
  backend(): object;
  getBackend(): string;
  tidy<T>(body: () => T): T;
  keep(tensor: TfTensor): TfTensor;
  dispose(tensors: readonly TfTensor[]): void;
  customGrad(
    body: (...given: [...inputs: TfTensor[], save: (saved: readonly TfTensor[]) => void]) => {
      readonly value: TfTensor;
      readonly gradFunc: (dy: TfTensor, saved: readonly TfTensor[]) => readonly TfTensor[];
    },
  ): (...inputs: readonly TfTensor[]) => TfTensor;
  tensor(
    values: Float32Array | Int32Array | readonly number[] | LentBuffer,
    shape: readonly number[],
    dtype?: "float32" | "int32",
  ): TfTensor;
  zeros(shape: readonly number[], dtype?: string): TfTensor;
  onesLike(like: TfTensor): TfTensor;
  reshape(tensor: TfTensor, shape: readonly number[]): TfTensor;
  concat(tensors: readonly TfTensor[], axis?: number): TfTensor;
  slice(tensor: TfTensor, begin: readonly number[], size: readonly number[]): TfTensor;
  add(a: TfTensor, b: TfTensor | number): TfTensor;
  sub(a: TfTensor, b: TfTensor): TfTensor;
  mul(a: TfTensor, b: TfTensor | number): TfTensor;
  square(tensor: TfTensor): TfTensor;
  sum(tensor: TfTensor, axes?: readonly number[], keepDims?: boolean): TfTensor;
  mean(tensor: TfTensor, axes?: readonly number[], keepDims?: boolean): TfTensor;
  batchNorm2d(
    x: TfTensor,
    mean: TfTensor,
    variance: TfTensor,
    offset?: TfTensor,
    scale?: TfTensor,
    epsilon?: number,
  ): TfTensor;
  readonly models: { modelFromJSON(topology: object): Promise<TfModel> };
}

/** A buffer of a GPU that becomes a tensor's, without a copy. */
export interface LentBuffer {
  readonly buffer: object;
  readonly zeroCopy: true;
}

/** A model of layers, `tf.LayersModel` or `tf.Sequential`. */
export interface TfModel {
  /** Its name. */
  readonly name: string;
  /** Its layers. */
  readonly layers: readonly object[];
  /** Makes it trainable. */
  compile(options: never): void;
  /** Values of its weights. */
  getWeights(trainableOnly?: boolean): TfTensor[];
  /** Replaces the values of its weights. */
  setWeights(values: TfTensor[]): void;
  /** Its description. */
  toJSON(unused?: unknown, returnString?: boolean): object | string;
}

/** The tensor that holds the value of a weight. */
export interface Variable extends TfTensor {
  /** Its name, unlike that of any other. */
  readonly name: string;
  /** Whether gradients are computed for it. */
  readonly trainable: boolean;
}

/** A weight of a layer. */
export interface LayerVariable {
  /** Its name as files have it. */
  readonly originalName: string;
  /** Whether it is trained. */
  trainable: boolean;
  /** Its value. */
  read(): Variable;
  /** Replaces its value. */
  write(value: TfTensor): unknown;
}

/** A place in the graph of a model. */
export interface Symbolic {
  readonly id: number;
  readonly sourceLayer: Layer;
  readonly nodeIndex: number;
}

/** A call of a layer in the graph of a model. */
export interface GraphNode {
  readonly inputTensors: readonly Symbolic[];
  readonly outputTensors: readonly Symbolic[];
}

/** A layer. */
export interface Layer {
  readonly name: string;
  trainable: boolean;
  readonly weights: readonly LayerVariable[];
  readonly trainableWeights: readonly LayerVariable[];
  readonly inboundNodes: readonly GraphNode[];
  readonly supportsMasking: boolean;
  getClassName(): string;
  computeMask(
    inputs: readonly TfTensor[],
    masks: readonly (TfTensor | null)[],
  ): TfTensor | readonly TfTensor[] | null;
  apply(inputs: readonly TfTensor[], kwargs: object): TfTensor | readonly TfTensor[];
  /** What the layer computes; an own property takes the place of its class's. */
  call(inputs: TfTensor | readonly TfTensor[], kwargs: CallOptions | undefined): unknown;
}

/** How a layer is called. */
export interface CallOptions {
  readonly training?: boolean;
}

/** A batch norm. */
export interface Norm extends Layer {
  readonly axis: number;
  readonly epsilon: number;
  readonly momentum: number;
  readonly gamma?: LayerVariable | null;
  readonly beta?: LayerVariable | null;
  readonly movingMean: LayerVariable;
  readonly movingVariance: LayerVariable;
}

/** A layer that is a graph of layers. */
export interface Container extends Layer {
  readonly inputs: readonly Symbolic[];
  readonly outputs: readonly Symbolic[];
  readonly layers: readonly Layer[];
}

/** A loss, or a metric: of targets and outputs, by rows. */
export type LossFunction = (target: TfTensor, output: TfTensor) => TfTensor;

/** An optimiser. */
export interface Optimizer {
  computeGradients(
    loss: () => TfTensor,
    variables?: readonly Variable[],
  ): { readonly value: TfTensor; readonly grads: Record<string, TfTensor | null> };
  applyGradients(
    gradients: readonly { readonly name: string; readonly tensor: TfTensor }[],
  ): void;
}

/** What computes on the tensors of a batch: inputs, targets, weights of rows. */
export type BatchFunction = (data: readonly (TfTensor | null)[]) => TfTensor[];

/** A model with what makes it train: of a sequential one, the model within. */
export interface LayersModel extends Container {
  /** The model within a sequential one. */
  readonly model?: LayersModel | null;
  readonly optimizer: Optimizer;
  readonly lossFunctions: readonly LossFunction[];
  readonly metricsTensors: readonly (readonly [LossFunction, number])[];
  readonly metricsNames: readonly string[];
  getDedupedMetricsNames(): readonly string[];
  readonly collectedTrainableWeights: readonly LayerVariable[];
  calculateLosses(): readonly TfTensor[];
  compile(options: object): void;
  getWeights(): TfTensor[];
  setWeights(values: readonly TfTensor[]): void;
  standardizeUserDataXY(
    x: unknown,
    y: unknown,
  ): readonly [readonly TfTensor[], readonly TfTensor[]];
  /** Makes what `fit`, `fitDataset` and `trainOnBatch` call with every batch. */
  makeTrainFunction(): BatchFunction;
  /** What `fit` and `evaluate` call with all rows that a model is judged by. */
  testLoop(
    judge: BatchFunction,
    data: readonly TfTensor[],
    batchSize: number,
    ...rest: unknown[]
  ): TfTensor[];
  /** Makes `testFunction`, which judges a batch. */
  makeTestFunction(): void;
  testFunction?: BatchFunction;
  evaluate(x: unknown, y: unknown, options?: FitOptions): TfTensor | TfTensor[];
  evaluateDataset(dataset: Dataset, options?: object): Promise<TfTensor | TfTensor[]>;
  fitDataset(dataset: Dataset, options: FitOptions): Promise<unknown>;
  fit(x: unknown, y: unknown, options?: FitOptions): Promise<unknown>;
  trainOnBatch(x: unknown, y: unknown): Promise<number | number[]>;
}

/** Options of `fit` and `fitDataset`, as far as they are looked at. */
export interface FitOptions {
  readonly callbacks?: unknown;
  readonly batchSize?: number;
  readonly epochs?: number;
  readonly validationSplit?: number;
  readonly classWeight?: unknown;
  readonly sampleWeight?: unknown;
  readonly validationData?: unknown;
}

/** A data set of batches. */
export interface Dataset {
  readonly size?: number | null;
  iterator(): Promise<{ next(): Promise<unknown> }>;
}
