/**
 * The network: two 3x3 convolutions and a dense layer, each with a batch norm and a ReLU, then a linear layer. The batch
 * norms are the library's and run on its device; everything else is in `layers.ts`.
 *
 * @module
 */

import {
  batchNormInfer,
  type BatchNormState,
  type Device,
  type GroupResiduals,
  initBatchNorm,
  type ReduceGroup,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
  withParameters,
} from "../mod.ts";
import {
  type Block,
  BLOCKS,
  FEATURES,
  HEAD,
  HEAD_BIAS,
  headShape,
  LENGTH,
  shapeOf,
} from "./blocks.ts";
import { CLASSES, type Images } from "./digits.ts";
import {
  columnSums,
  crossEntropy,
  fold,
  linear,
  linearGradInput,
  linearGradWeight,
  type LinearShape,
  unfold,
} from "./layers.ts";

/** A network's numbers. */
export interface Model<A> {
  /**
   * All parameters in one vector, so that replicas can exchange and compare them at once: kernel, scale and offset of
   * each block, then weight and bias of the linear layer.
   */
  readonly parameters: Float32Array;
  /** The batch norms, with copies of their scale and offset on the device; null for a network without. */
  readonly norms: readonly BatchNormState<A>[] | null;
}

/** What one batch taught one replica. */
export interface Lesson<A> {
  /** Sum of the loss over this replica's images. */
  readonly loss: number;
  /** Gradient of that sum in `parameters`, from this replica's images alone. */
  readonly gradient: Float64Array;
  /** The batch norms with their running statistics after this batch. */
  readonly norms: readonly BatchNormState<A>[] | null;
}

/** Where a network computes, and with whom it shares the statistics of its batches. */
export interface Effects<A> {
  readonly device: Device<A>;
  readonly group: ReduceGroup;
}

/** What a block keeps of forward for backward. */
interface Saved<A> {
  readonly patches: Float32Array;
  readonly output: Float32Array;
  readonly residuals: GroupResiduals<A> | null;
}

/**
 * A channel that hardly varies magnifies rounding by up to 1/sqrt(eps), and a batch of few images has many such
 * channels: 10 instead of the usual 316 keeps small batches comparable.
 */
const EPS = 1e-2;

/**
 * Draws the first parameters: kernels and weights from a normal distribution (He et al. 2015, equation 10), scales 1,
 * offsets 0.
 *
 * @param random source of numbers in [0, 1)
 * @returns a vector as {@linkcode Model} describes it
 */
export function firstParameters(random: () => number): Float32Array {
  const parameters = new Float32Array(LENGTH);
  const draw = (from: number, to: number, fanIn: number) => {
    const deviation = Math.sqrt(2 / fanIn);
    for (let i = from; i < to; i++) parameters[i] = deviation * normal(random);
  };
  for (const { kernel, scale, inputs } of BLOCKS) {
    draw(...kernel, inputs);
    parameters.fill(1, ...scale);
  }
  draw(HEAD, HEAD_BIAS, FEATURES);
  return parameters;
}

/** Makes the batch norms that belong to {@linkcode firstParameters}. */
export function firstNorms<A>(device: Device<A>): readonly BatchNormState<A>[] {
  return BLOCKS.map(({ channels }) => initBatchNorm(device, channels, { eps: EPS }));
}

/** Copies scales and offsets from the parameters to the batch norms on the device. */
export function upload<A>(
  device: Device<A>,
  norms: readonly BatchNormState<A>[],
  parameters: Float32Array,
): readonly BatchNormState<A>[] {
  return norms.map((state, i) =>
    withParameters(state, {
      weight: device.upload(parameters.subarray(...BLOCKS[i].scale)),
      bias: device.upload(parameters.subarray(...BLOCKS[i].offset)),
    })
  );
}

/**
 * Computes loss and gradient of this replica's images; with batch norms, every rank of the group must call it.
 *
 * @param model this replica's network
 * @param images this replica's part of the batch; may be none
 * @param effects the device, and the group whose whole batch the batch norms normalize with
 * @returns what was learnt; the caller frees `norms`
 */
export async function study<A>(
  model: Model<A>,
  images: Images,
  effects: Effects<A>,
): Promise<Lesson<A>> {
  const { parameters } = model;
  const gradient = new Float64Array(LENGTH);
  const saved: Saved<A>[] = [];
  const norms: BatchNormState<A>[] = [];

  let x = images.pixels;
  for (const [i, block] of BLOCKS.entries()) {
    const patches = rowsOf(x, images.count, block);
    const features = weigh(patches, images.count, block, parameters);
    if (model.norms === null) {
      x = biasRelu(features, parameters.subarray(...block.offset));
      saved.push({ patches, output: x, residuals: null });
      continue;
    }
    const input = onDevice(effects.device, features, images.count, block);
    const options = { activation: "relu" } as const;
    const forward = await syncBatchNormForward(model.norms[i], input, effects, options);
    x = await toArray(effects.device, forward.output);
    saved.push({ patches, output: x, residuals: forward.residuals });
    norms.push(forward.state);
  }

  const head = headShape(images.count);
  const { total: loss, gradLogits } = crossEntropy(
    classify(x, head, parameters),
    images.labels,
    CLASSES,
  );
  gradient.set(linearGradWeight(x, gradLogits, head), HEAD);
  gradient.set(columnSums(gradLogits, CLASSES), HEAD_BIAS);

  let dy = linearGradInput(gradLogits, parameters.subarray(HEAD, HEAD_BIAS), head);
  for (const [i, block] of [...BLOCKS.entries()].reverse()) {
    const { patches, output, residuals } = saved[i];
    const shape = shapeOf(images.count, block);
    if (residuals === null) {
      dy = dy.map((value, at) => output[at] > 0 ? value : 0);
      gradient.set(columnSums(dy, block.channels), block.offset[0]);
    } else {
      const gradOutput = onDevice(effects.device, dy, images.count, block);
      const backward = await syncBatchNormBackward(residuals, gradOutput, effects);
      dy = await toArray(effects.device, backward.gradInput);
      gradient.set(await read(effects.device, backward.gradWeight), block.scale[0]);
      gradient.set(await read(effects.device, backward.gradBias), block.offset[0]);
    }
    gradient.set(linearGradWeight(patches, dy, shape), block.kernel[0]);
    if (i === 0) continue; // Nobody asks for the gradient of the images.
    const gradPatches = linearGradInput(dy, parameters.subarray(...block.kernel), shape);
    dy = imagesOf(gradPatches, images.count, block);
  }
  return { loss, gradient, norms: model.norms === null ? null : norms };
}

/**
 * Judges a network by images it has not learnt from, with the running statistics of its batch norms.
 *
 * @param model the network
 * @param images what to judge it by
 * @param device where its batch norms live
 * @returns the share of images it names rightly, 0 to 1, and the mean loss
 */
export async function examine<A>(
  model: Model<A>,
  images: Images,
  device: Device<A>,
): Promise<{ readonly accuracy: number; readonly loss: number }> {
  const { parameters, norms } = model;
  let x = images.pixels;
  for (const [i, block] of BLOCKS.entries()) {
    const features = weigh(rowsOf(x, images.count, block), images.count, block, parameters);
    if (norms === null) {
      x = biasRelu(features, parameters.subarray(...block.offset));
      continue;
    }
    const input = onDevice(device, features, images.count, block);
    x = await toArray(
      device,
      batchNormInfer(norms[i], input, { device }, { activation: "relu" }),
    );
  }
  const logits = classify(x, headShape(images.count), parameters);
  const { total, correct } = crossEntropy(logits, images.labels, CLASSES);
  return { accuracy: correct / images.count, loss: total / images.count };
}

/** What each output of a block is a weighted sum of, as rows of a matrix. */
function rowsOf(x: Float32Array, images: number, { window }: Block): Float32Array {
  return window ? unfold(x, { ...window, images }) : x;
}

/** The transpose of {@linkcode rowsOf}. */
function imagesOf(rows: Float32Array, images: number, { window }: Block): Float32Array {
  return window ? fold(rows, { ...window, images }) : rows;
}

function weigh(
  rows: Float32Array,
  images: number,
  block: Block,
  parameters: Float32Array,
): Float32Array {
  return linear(rows, parameters.subarray(...block.kernel), shapeOf(images, block));
}

function classify(x: Float32Array, head: LinearShape, parameters: Float32Array): Float32Array {
  const bias = parameters.subarray(HEAD_BIAS);
  return linear(x, parameters.subarray(HEAD, HEAD_BIAS), head)
    .map((value, i) => value + bias[i % CLASSES]);
}

/** What stands in for a batch norm in the network without: the same offset per channel, nothing normalized. */
function biasRelu(x: Float32Array, offset: Float32Array): Float32Array {
  return x.map((value, i) => Math.max(value + offset[i % offset.length], 0));
}

function onDevice<A>(
  device: Device<A>,
  values: Float32Array,
  images: number,
  { channels, side }: Block,
): Tensor<A> {
  return tensor(device, values, [images, channels, side, side], { format: "channelsLast" });
}

async function read<A>(device: Device<A>, vector: A | null): Promise<Float32Array> {
  return vector === null ? new Float32Array(0) : await device.download(vector);
}

/** A draw from the standard normal distribution (Box and Muller 1958). */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
