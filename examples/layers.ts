/**
 * The layers that are not the library's, as an effect: a record of functions over vectors of some memory.
 * `host_layers.ts` runs them as plain loops, `webgpu_layers.ts` as kernels of the demo's own on the GPUDevice that the
 * library uses too.
 *
 * Images lie channels last: a row of a matrix is one pixel with all its channels.
 *
 * These layers run on the host beside Wasm, as beside the reference: only the batch norms are the library's.
 *
 * @module
 */

import type { Device, Tensor } from "../mod.ts";

/** A matrix product's extents: `rows` vectors of `inputs` elements become vectors of `outputs` elements. */
export interface LinearShape {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
}

/** Extents of a 3x3 window that moves over square images with a border of one zero. */
export interface WindowShape {
  readonly images: number;
  readonly side: number;
  readonly channels: number;
  readonly stride: number;
}

/** What the loss says of a batch. */
export interface Loss<V> {
  /** Per image its loss, -log p(label), and 1 where its likeliest digit is the label, else 0; shape (images, 2). */
  readonly scores: V;
  /** Gradient of the sum of the losses in the logits, shape (images, classes). */
  readonly gradLogits: V;
}

/** What gradient descent moves. */
export interface Moving<V> {
  readonly parameters: V;
  /** The weighted mean of past gradients. */
  readonly velocity: V;
}

/** How far gradient descent moves. */
export interface Pace {
  /** Learning rate. */
  readonly rate: number;
  /** Share of the velocity that is kept. */
  readonly momentum: number;
}

/** The arithmetic of the layers: pure functions over vectors V of float32. Every result is a new vector. */
export interface Arithmetic<V> {
  /** y = x * weight^T; x has shape (rows, inputs), weight (outputs, inputs), y (rows, outputs). */
  readonly linear: (x: V, weight: V, shape: LinearShape) => V;
  /** dWeight = dy^T * x, shape (outputs, inputs). */
  readonly linearGradWeight: (x: V, dy: V, shape: LinearShape) => V;
  /** dx = dy * weight, shape (rows, inputs). */
  readonly linearGradInput: (dy: V, weight: V, shape: LinearShape) => V;
  /** Sums of the columns of a matrix of shape (rows, columns). */
  readonly columnSums: (matrix: V, rows: number, columns: number) => V;
  /** Rows of a matrix by their numbers, in the given order. */
  readonly pickRows: (matrix: V, numbers: readonly number[], columns: number) => V;
  /** Lays out what the window sees at each stop as a row of 9 * channels; a convolution is `linear` of it. */
  readonly unfold: (x: V, shape: WindowShape) => V;
  /** The transpose of `unfold`: adds every row back to the pixels it was copied from. */
  readonly fold: (rows: V, shape: WindowShape) => V;
  /** x + bias, with the bias of each column. */
  readonly addBias: (x: V, bias: V, columns: number) => V;
  /** max(x, 0). */
  readonly relu: (x: V) => V;
  /** dy where output > 0, else 0: the gradient of `relu`. */
  readonly gate: (dy: V, output: V) => V;
  /** Softmax and cross-entropy of logits of shape (images, classes), with labels of shape (images). */
  readonly crossEntropy: (logits: V, labels: V, images: number, classes: number) => Loss<V>;
  /** One step of gradient descent: velocity = momentum * velocity + gradient, then parameters - rate * velocity. */
  readonly descend: (moving: Moving<V>, gradient: Float64Array, pace: Pace) => Moving<V>;
}

/** The layers, and the way between their vectors V and the arrays A of the library's device. */
export interface Layers<V, A> extends Arithmetic<V> {
  /** Where the batch norms compute. */
  readonly device: Device<A>;
  /** Puts numbers where the layers compute. */
  readonly upload: (values: Float32Array) => V;
  /** Reads vectors back, all in one go. */
  readonly read: (...vectors: readonly V[]) => Promise<readonly Float32Array[]>;
  /** A part of a vector. It shares the vector's memory: free the vector, not the part. */
  readonly slice: (vector: V, from: number, to: number) => V;
  /** Hands a vector to the library, as a tensor of the logical shape (N, C, ...spatial) with its channels last. */
  readonly toTensor: (vector: V, shape: readonly number[]) => Tensor<A>;
  /** Takes an array of the library as a vector, to be read only. */
  readonly fromArray: (array: A) => V | Promise<V>;
  /**
   * Runs a body, then frees all vectors and arrays that were made through the inner layers, except what its result
   * holds: arrays anywhere in it, vectors as members of the record itself.
   */
  readonly region: <R extends object>(
    body: (layers: Layers<V, A>) => Promise<R>,
  ) => Promise<R>;
  /** Frees vectors that were made outside of regions, or that a region's result held. */
  readonly free: (...vectors: readonly V[]) => void;
}

/** Side of the window. */
export const WINDOW = 3;
/** Cells of the window. */
export const WINDOW_AREA = WINDOW ** 2;

/** Number of positions along a side that the window stops at. */
export function sideAfter(side: number, stride: number): number {
  return Math.floor((side - 1) / stride) + 1;
}

/** Number of elements that `unfold` makes. */
export function unfolded({ images, side, channels, stride }: WindowShape): number {
  return images * sideAfter(side, stride) ** 2 * WINDOW_AREA * channels;
}
