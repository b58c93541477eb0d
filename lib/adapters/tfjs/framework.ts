/**
 * TensorFlow.js as it is handed over, and as the adapter calls it once it is checked, by structural types of its own: no source
 * imports a framework.
 *
 * Members are written as methods, whose parameters TypeScript compares in both directions: the framework's functions ask for
 * its own classes, of which these types name a part.
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
  /** Joins tensors along a new axis. */
  readonly stack: Operation;
  /** Takes a tensor apart along an axis. */
  unstack(tensor: never, axis?: number): TfTensor[];
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
  stack(tensors: readonly TfTensor[], axis: number): TfTensor;
  unstack(tensor: TfTensor, axis: number): TfTensor[];
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
