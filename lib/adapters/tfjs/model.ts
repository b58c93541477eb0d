/**
 * Layers and models of TensorFlow.js as far as the adapter looks into them: what `internals.ts` makes of a model that it has
 * checked.
 *
 * @module
 */

import type { TfTensor } from "./framework.ts";

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
  readonly shape: readonly (number | null)[];
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
