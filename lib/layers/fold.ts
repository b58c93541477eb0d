/** Folding: a batch norm's evaluation, put into the weights of the linear layer or convolution before it. */

import { checkHostState } from "../check_state.ts";
import { checkFloat32 } from "../check_value.ts";
import { invstd } from "../reference/kernels.ts";
import type { BatchNormState } from "../state.ts";
import { elements } from "../tensor.ts";
import { listed, wrongKind, wrongPair, wrongValue } from "../words.ts";

/** A linear layer or a convolution, on the host. */
export interface LinearLayer {
  /** Its weights in row-major order, float32. */
  readonly weight: Float32Array;
  /**
   * Their shape: (out, in) of a linear layer, (out, in / groups, ...kernel) of a convolution,
   * (in, out / groups, ...kernel) of a transposed one.
   */
  readonly shape: readonly number[];
  /** Offset per output channel, shape (out), float32, or null for none. */
  readonly bias: Float32Array | null;
  /** Whether the output channels are axis 1 of the weight; false by default. */
  readonly transposed?: boolean;
}

/** A layer that does its batch norm's work too. */
export interface FoldedLayer {
  /** Weights of the same shape. */
  readonly weight: Float32Array;
  /** The shape that was given. */
  readonly shape: readonly number[];
  /** Offset per output channel, shape (out), float32. */
  readonly bias: Float32Array;
  /** Whether the output channels are axis 1 of the weight, as it was given. */
  readonly transposed: boolean;
}

/**
 * Folds a batch norm into the layer directly before it, which then gives alone what both give in evaluation.
 *
 * With s = w / sqrt(runningVar + eps) per output channel, s = 0 where runningVar + eps is 0 (as everywhere in this
 * library): weight' = weight * s and bias' = (bias - runningMean) * s + b, where w and b are those of the batch norm
 * (`torch.nn.utils.fusion`). In float64, rounded once. The number of groups follows from the shapes. An activation of the
 * batch norm's layer stays to be applied.
 *
 * A linear layer's outputs are the last axis, and a batch norm's channels are axis 1: the same axis in batches (N, C)
 * alone. Behind a linear layer over the last axis of (N, L, in) a batch norm has L channels, and cannot be folded; where L
 * equals the number of outputs only the rank tells. A linear layer over the channels of such batches, as where they are
 * stored last, is a convolution of shape (out, in, 1).
 *
 * @param hostState the batch norm, on the host (`stateToHost`); it is not changed
 * @param layer the layer before it; it is not changed. `transposed` for a transposed convolution, and for a linear layer
 * whose weight has shape (in, out)
 * @param inputRank rank of the batches that the batch norm normalizes: 2 for (N, C), 4 for images
 * @returns a frozen layer of new arrays
 * @throws TypeError for a state without running statistics, whose evaluation is no linear function, or that is not on
 * the host; where weight, shape and bias do not fit each other, the shape has another rank than the input, or the output
 * channels are not numFeatures. RangeError for an extent that is no integer >= 1, and a rank that is no integer >= 2
 *
 * @example y = 3x, then (y - 1) / 2
 * ```ts
 * import { foldBatchNorm, initBatchNorm, referenceDevice, stateToHost } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = await stateToHost(device, initBatchNorm(device, 1, { eps: 0 }));
 * const trained = { ...fresh, runningMean: Float32Array.of(1), runningVar: Float32Array.of(4) };
 * const layer = { weight: Float32Array.of(3), shape: [1, 1], bias: null };
 * const folded = foldBatchNorm(trained, layer, 2);
 * assert.deepEqual(folded.weight, Float32Array.of(1.5));
 * assert.deepEqual(folded.bias, Float32Array.of(-0.5));
 * ```
 */
export function foldBatchNorm(
  hostState: BatchNormState<Float32Array>,
  layer: LinearLayer,
  inputRank: number,
): FoldedLayer {
  return folded(hostState, layer, inputRank, "fold the batch norm");
}

/** Folds as {@linkcode foldBatchNorm} does. */
export function folded(
  hostState: BatchNormState<Float32Array>,
  layer: LinearLayer,
  inputRank: number,
  action: string,
): FoldedLayer {
  checkHostState(hostState, action);
  checkLinear(layer, action);
  checkInputRank(layer, inputRank, action);
  const { runningMean, runningVar, weight: gamma, bias: beta, eps, numFeatures } = hostState;
  if (runningMean === null || runningVar === null) {
    const why = "else its output is no linear function of its input";
    throw wrongKind(action, `it must have running statistics, ${why}`, null, "runningMean");
  }
  const { weight, shape, bias, transposed = false } = layer;
  const channelOf = outputChannels(layer, numFeatures, action);
  checkBias(bias, numFeatures, action);
  const scale = Float64Array.from(
    runningVar,
    (variance, c) => (gamma?.[c] ?? 1) * invstd(variance, eps),
  );
  return Object.freeze({
    weight: Float32Array.from(weight, (value, at) => value * scale[channelOf(at)]),
    shape: Object.freeze([...shape]),
    bias: Float32Array.from(
      runningMean,
      (mean, c) => ((bias?.[c] ?? 0) - mean) * scale[c] + (beta?.[c] ?? 0),
    ),
    transposed,
  });
}

function outputChannels(
  { shape, transposed = false }: LinearLayer,
  numFeatures: number,
  action: string,
): (at: number) => number {
  const refuse = (wanted: string, one: number, other: number): never => {
    throw wrongPair(action, wanted, one, `${other} in shape ${listed(shape)}`);
  };
  const [first, second, ...kernel] = shape;
  const inner = elements(kernel);
  // Only transposed convolutions say nothing else of their groups.
  if (!transposed || kernel.length === 0) {
    const axis = transposed ? 1 : 0;
    if (shape[axis] !== numFeatures) {
      const wanted = `the layer's output channels, axis ${axis}, must equal numFeatures`;
      refuse(wanted, shape[axis], numFeatures);
    }
  }
  if (!transposed) return (at) => Math.trunc(at / (second * inner));
  const groups = numFeatures / second;
  if (!Number.isInteger(groups)) {
    const channels = "the transposed layer's output channels per group, axis 1";
    refuse(`numFeatures must be a multiple of ${channels}`, numFeatures, second);
  }
  if (first % groups !== 0) {
    const multiple = "a multiple of its groups, numFeatures / axis 1";
    refuse(`the transposed layer's input channels, axis 0, must be ${multiple}`, first, groups);
  }
  const perGroup = first / groups;
  return (at) => {
    const [input, output] = [Math.trunc(at / (second * inner)), Math.trunc(at / inner) % second];
    return Math.trunc(input / perGroup) * second + output;
  };
}

function checkLinear(layer: LinearLayer, action: string): void {
  const { weight, shape } = layer ?? {};
  checkFloat32(weight, "the layer's weight", action);
  if (!Array.isArray(shape) || shape.length < 2) {
    throw wrongKind(action, "the layer must have a shape of rank >= 2", shape, "shape");
  }
  // Array.from: every() skips the holes of a sparse array.
  if (!Array.from(shape).every((extent) => Number.isSafeInteger(extent) && extent >= 1)) {
    throw wrongValue(action, "every extent of the layer must be an integer >= 1", shape, "shape");
  }
  const needed = elements(shape);
  if (weight.length === needed) return;
  const wanted = `shape ${listed(shape)} needs ${needed} weights`;
  throw wrongKind(action, wanted, weight.length, "number");
}

function checkInputRank({ shape }: LinearLayer, inputRank: number, action: string): void {
  if (!Number.isSafeInteger(inputRank) || inputRank < 2) {
    const wrong = typeof inputRank === "number" ? wrongValue : wrongKind;
    const wanted = "inputRank, that of the batches that it normalizes, must be an integer >= 2";
    throw wrong(action, wanted, inputRank);
  }
  if (shape.length === inputRank) return;
  throw new TypeError(
    `Cannot ${action} as the layer's weight must have the rank of the batches that it normalizes, ` +
      `${inputRank}, or its outputs are not their channels, axis 1 (a linear layer over these is a ` +
      `convolution of shape (out, in, 1)): current shape is ${listed(shape)}`,
  );
}

function checkBias(bias: Float32Array | null, numFeatures: number, action: string): void {
  if (bias === null) return;
  if (!(bias instanceof Float32Array)) {
    throw wrongKind(action, "the layer's bias must be a Float32Array or null", bias);
  }
  if (bias.length === numFeatures) return;
  const wanted = "the length of the layer's bias must be numFeatures";
  throw wrongPair(action, wanted, bias.length, numFeatures);
}
