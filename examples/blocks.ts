/**
 * What the network is made of, and where each part stands in the vector of all parameters.
 *
 * @module
 */

import { CLASSES, SIDE } from "./digits.ts";
import { type LinearShape, sideAfter, WINDOW_AREA, type WindowShape } from "./layers.ts";

/** A convolution or a dense layer, its batch norm and its ReLU. */
export interface Block {
  /** How the convolution's window moves; null for a dense layer, which sees a whole image at once. */
  readonly window: Omit<WindowShape, "images"> | null;
  /** Elements that each output is a weighted sum of. */
  readonly inputs: number;
  /** Outputs per position. */
  readonly channels: number;
  /** Positions along a side of the output. */
  readonly side: number;
  /** Where the weights stand among the parameters, shape (channels, inputs). */
  readonly kernel: readonly [from: number, to: number];
  /** Where the batch norm's weight stands, shape (channels). */
  readonly scale: readonly [from: number, to: number];
  /** Where the batch norm's bias stands, shape (channels). */
  readonly offset: readonly [from: number, to: number];
}

const PLAN = [
  { kind: "convolution", channels: 8, stride: 1 },
  { kind: "convolution", channels: 16, stride: 2 },
  { kind: "dense", channels: 64 },
] as const;
/** The network, block by block. */
export const BLOCKS = layOut();
const LAST = BLOCKS[BLOCKS.length - 1];
/** Inputs of the linear layer at the end. */
export const FEATURES = LAST.side ** 2 * LAST.channels;
/** Where the linear layer's weight begins among the parameters, shape (classes, features). */
export const HEAD = LAST.offset[1];
/** Where its bias begins, shape (classes). */
export const HEAD_BIAS = HEAD + CLASSES * FEATURES;
/** Number of parameters. */
export const LENGTH = HEAD_BIAS + CLASSES;

/** Extents of a block's matrix product. */
export function shapeOf(images: number, { inputs, channels, side }: Block): LinearShape {
  return { rows: images * side ** 2, inputs, outputs: channels };
}

/** Extents of the linear layer's matrix product. */
export function headShape(images: number): LinearShape {
  return { rows: images, inputs: FEATURES, outputs: CLASSES };
}

/** Gives each block its extents and its place among the parameters. */
function layOut(): readonly Block[] {
  const blocks: Block[] = [];
  let [side, channels, at] = [SIDE, 1, 0];
  for (const layer of PLAN) {
    const window = layer.kind === "dense" ? null : { side, channels, stride: layer.stride };
    const inputs = window ? WINDOW_AREA * channels : side ** 2 * channels;
    channels = layer.channels;
    side = window ? sideAfter(side, window.stride) : 1;
    const scale = at + channels * inputs;
    const offset = scale + channels;
    blocks.push(Object.freeze<Block>({
      window,
      inputs,
      channels,
      side,
      kernel: [at, scale],
      scale: [scale, offset],
      offset: [offset, offset + channels],
    }));
    at = offset + channels;
  }
  return Object.freeze(blocks);
}
