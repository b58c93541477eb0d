/**
 * The network: two 3x3 convolutions and a dense layer, each with a batch norm and a ReLU, then a linear layer. The batch
 * norms are the library's; everything else is in `layers.ts`, and whatever lies between two layers stays where it is.
 *
 * @module
 */

import {
  batchNormInfer,
  type BatchNormState,
  type ExactSums,
  exactSums,
  type GroupSaved,
  type ReduceGroup,
  syncBatchNormBackward,
  syncBatchNormForward,
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
import { CLASSES, type Images, SIDE } from "./digits.ts";
import type { Layers } from "./layers.ts";
import type { Model } from "./model.ts";
import { gather, type Part, vectorOf } from "./parts.ts";

/** Images where the layers compute. */
export interface Batch<V> {
  /** Number of images. */
  readonly count: number;
  /** Pixels, shape (count, 8, 8, 1), channels last. */
  readonly pixels: V;
  /** The digit that each image shows, shape (count). */
  readonly labels: V;
}

/** What one batch taught one replica. */
export interface Lesson<A> {
  /** Gradient of the sum of the losses in `parameters`, from this replica's images alone; beside sums what these are not of. */
  readonly gradient: Float64Array;
  /** The same without rounding, image by image, where the device is exact; null elsewhere. */
  readonly sums: ExactSums | null;
  /** The batch norms with their running statistics after this batch. */
  readonly norms: readonly BatchNormState<A>[] | null;
}

/** What a block keeps of forward for backward. */
interface Saved<V, A> {
  readonly patches: V;
  readonly features: V;
  readonly output: V;
  readonly norm: GroupSaved<A> | null;
}

/** Puts images where the layers compute; the caller frees them. */
export function store<V, A>({ count, pixels, labels }: Images, layers: Layers<V, A>): Batch<V> {
  return {
    count,
    pixels: layers.upload(pixels),
    labels: layers.upload(Float32Array.from(labels)),
  };
}

/** Picks images by number; there may be none. */
export function pick<V, A>(
  { pixels, labels }: Batch<V>,
  numbers: readonly number[],
  layers: Layers<V, A>,
): Batch<V> {
  return {
    count: numbers.length,
    pixels: layers.pickRows(pixels, numbers, SIDE ** 2),
    labels: layers.pickRows(labels, numbers, 1),
  };
}

/**
 * Computes the gradient of this replica's images; with batch norms, every rank of the group must call it.
 *
 * The only readbacks are the batch norms' own, one per direction and block where the group has more than one rank, and
 * that of the gradient at the end.
 *
 * @param model this replica's network
 * @param images this replica's part of the batch; may be none
 * @param layers where everything computes
 * @param group whose whole batch the batch norms normalize with
 * @returns what was learnt; the caller frees `norms`
 */
export async function study<V, A>(
  model: Model<V, A>,
  images: Batch<V>,
  layers: Layers<V, A>,
  group: ReduceGroup,
): Promise<Lesson<A>> {
  const { parameters } = model;
  const { count } = images;
  const effects = { device: layers.device, group };
  const { x, saved, norms } = await climb(model, images, layers, group);

  const head = headShape(count);
  const logits = classify(x, count, parameters, layers);
  const { gradLogits } = layers.crossEntropy(logits, images.labels, count, CLASSES);
  const exact = layers.device.info.exact === true;
  const parts: Part<V>[] = []; // Sums over images, or of an exact device what each image has.
  const others: Part<V>[] = []; // Those of batch norms that an exact device has of the whole group.
  const ofNorms = exact && group.worldSize > 1 ? others : parts;
  const pieces = exact
    ? Array.from({ length: count }, (_, i) => [i, 1] as const)
    : [[0, count] as const];
  const ofImages = (make: (from: number, images: number) => readonly Part<V>[]) =>
    pieces.forEach(([from, images]) => parts.push(...make(from, images)));
  const rows = (matrix: V, from: number, images: number, size: number) =>
    exact ? layers.slice(matrix, from * size, (from + images) * size) : matrix;
  ofImages((from, images) => {
    const dy = rows(gradLogits, from, images, CLASSES);
    const own = rows(x, from, images, FEATURES);
    return [
      [HEAD, layers.linearGradWeight(own, dy, headShape(images))],
      [HEAD_BIAS, layers.columnSums(dy, images, CLASSES)],
    ];
  });

  const weight = layers.slice(parameters, HEAD, HEAD_BIAS);
  let dy = layers.linearGradInput(gradLogits, weight, head);
  for (const [i, block] of [...BLOCKS.entries()].reverse()) {
    const { patches, output, norm } = saved[i];
    const shape = shapeOf(count, block);
    if (norm === null) {
      dy = layers.gate(dy, output);
      const all = dy;
      ofImages((from, images) => {
        const { rows: height } = shapeOf(images, block);
        const own = rows(all, from, images, block.side ** 2 * block.channels);
        return [[block.offset[0], layers.columnSums(own, height, block.channels)]];
      });
    } else {
      const gradOutput = layers.toTensor(dy, shapeAfter(count, block));
      const backward = await syncBatchNormBackward(norm, gradOutput, effects);
      dy = await layers.fromArray(backward.gradInput.data);
      const own = ofNorms === others ? backward.group! : backward;
      ofNorms.push(
        ...await vectorOf(own.gradWeight, block.scale[0], layers),
        ...await vectorOf(own.gradBias, block.offset[0], layers),
      );
    }
    const behind = dy;
    ofImages((from, images) => {
      const own = shapeOf(images, block);
      const input = rows(patches, from, images, block.side ** 2 * block.inputs);
      const gradient = rows(behind, from, images, block.side ** 2 * block.channels);
      return [[block.kernel[0], layers.linearGradWeight(input, gradient, own)]];
    });
    if (i === 0) continue; // Nobody asks for the gradient of the images.
    const kernel = layers.slice(parameters, ...block.kernel);
    dy = imagesOf(layers.linearGradInput(dy, kernel, shape), count, block, layers);
  }
  const sums = exact ? exactSums(LENGTH) : null;
  const gradient = await gather(exact ? others : parts, layers);
  if (sums) { for (const [at, values] of parts) sums.add((await layers.read(values))[0], at); }
  return { gradient, sums, norms: model.norms === null ? null : norms };
}

/**
 * Reads what the batch norms are given of this replica's images while the network trains; with batch norms, every rank of
 * the group must call it. Nothing is learnt.
 *
 * @param model this replica's network
 * @param images this replica's part of the batch; may be none
 * @param layers where everything computes
 * @param group whose whole batch the batch norms normalize with
 * @returns per block the inputs of its batch norm, shape (count, side, side, channels)
 */
export async function observe<V, A>(
  model: Model<V, A>,
  images: Batch<V>,
  layers: Layers<V, A>,
  group: ReduceGroup,
): Promise<readonly Float32Array[]> {
  return await layers.region(async (inner) => {
    const { saved } = await climb(model, images, inner, group);
    return await inner.read(...saved.map(({ features }) => features));
  });
}

/** The forward pass up to the linear layer. */
async function climb<V, A>(
  model: Model<V, A>,
  images: Batch<V>,
  layers: Layers<V, A>,
  group: ReduceGroup,
): Promise<{
  readonly x: V;
  readonly saved: readonly Saved<V, A>[];
  readonly norms: readonly BatchNormState<A>[];
}> {
  const { parameters } = model;
  const { count } = images;
  const effects = { device: layers.device, group };
  const saved: Saved<V, A>[] = [];
  const norms: BatchNormState<A>[] = [];

  let x = images.pixels;
  for (const [i, block] of BLOCKS.entries()) {
    const patches = rowsOf(x, count, block, layers);
    const features = weigh(patches, count, block, parameters, layers);
    if (model.norms === null) {
      x = biasRelu(features, block, parameters, layers);
      saved.push({ patches, features, output: x, norm: null });
      continue;
    }
    const input = layers.toTensor(features, shapeAfter(count, block));
    const options = { activation: "relu" } as const;
    const forward = await syncBatchNormForward(model.norms[i], input, effects, options);
    x = await layers.fromArray(forward.output.data);
    saved.push({ patches, features, output: x, norm: forward.saved });
    norms.push(forward.state);
  }
  return { x, saved, norms };
}

/**
 * Judges a network by images it has not learnt from, with the running statistics of its batch norms.
 *
 * @param model the network
 * @param images what to judge it by
 * @param layers where everything computes; two numbers are read back
 * @returns the share of images it names rightly, 0 to 1, and the mean loss
 */
export async function examine<V, A>(
  model: Model<V, A>,
  images: Batch<V>,
  layers: Layers<V, A>,
): Promise<{ readonly accuracy: number; readonly loss: number }> {
  const { parameters, norms } = model;
  const { count, labels } = images;
  const { device } = layers;
  let x = images.pixels;
  for (const [i, block] of BLOCKS.entries()) {
    const patches = rowsOf(x, count, block, layers);
    const features = weigh(patches, count, block, parameters, layers);
    if (norms === null) {
      x = biasRelu(features, block, parameters, layers);
      continue;
    }
    const input = layers.toTensor(features, shapeAfter(count, block));
    const output = batchNormInfer(norms[i], input, { device }, { activation: "relu" });
    x = await layers.fromArray(output.data);
  }
  const logits = classify(x, count, parameters, layers);
  const { scores } = layers.crossEntropy(logits, labels, count, CLASSES);
  const [[loss, correct]] = await layers.read(layers.columnSums(scores, count, 2));
  return { accuracy: correct / count, loss: loss / count };
}

/** What each output of a block is a weighted sum of, as rows of a matrix. */
function rowsOf<V, A>(x: V, images: number, { window }: Block, layers: Layers<V, A>): V {
  return window ? layers.unfold(x, { ...window, images }) : x;
}

/** The transpose of {@linkcode rowsOf}. */
function imagesOf<V, A>(rows: V, images: number, { window }: Block, layers: Layers<V, A>): V {
  return window ? layers.fold(rows, { ...window, images }) : rows;
}

function weigh<V, A>(
  rows: V,
  images: number,
  block: Block,
  parameters: V,
  layers: Layers<V, A>,
): V {
  return layers.linear(rows, layers.slice(parameters, ...block.kernel), shapeOf(images, block));
}

function classify<V, A>(x: V, images: number, parameters: V, layers: Layers<V, A>): V {
  const y = layers.linear(x, layers.slice(parameters, HEAD, HEAD_BIAS), headShape(images));
  return layers.addBias(y, layers.slice(parameters, HEAD_BIAS, LENGTH), CLASSES);
}

/** What stands in for a batch norm in the network without: the same offset per channel, nothing normalized. */
function biasRelu<V, A>(
  x: V,
  { offset, channels }: Block,
  parameters: V,
  layers: Layers<V, A>,
): V {
  return layers.relu(layers.addBias(x, layers.slice(parameters, ...offset), channels));
}

/** The logical shape of what a block's linear map makes. */
function shapeAfter(images: number, { channels, side }: Block): readonly number[] {
  return [images, channels, side, side];
}
