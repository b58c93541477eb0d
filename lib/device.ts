/**
 * The first of the two effects: a device is a frozen record of functions over its own array type. Types only; the
 * interpreters are `reference_device.ts` and those under `kernels/`.
 *
 * Decisions:
 * - `gradients` gives those of input, weight and bias from one operation, out of the local and the total sums: a GPU
 *   then needs two dispatches per backward. Arrays that an operation returns together may share one allocation.
 * - Statistics carry their source: a batch's moments in the device's own layout, or running mean and variance. Kernels
 *   do not know whether moments came from this rank or from the group.
 * - `downloadAll`, many arrays in one transfer, is optional; without it each is read by itself. So is `adopt`, by which
 *   memory of the caller's enters: as an operation, so that a region's handle owns what was wrapped through it. The way
 *   back needs no device, as an array knows where it lies.
 *
 * @module
 */

import type { ArrayInfo, Describing, DType, Format, Tensor } from "./tensor.ts";

/** What a device says of itself. */
export interface DeviceInfo {
  /** What computes, for people: `"reference (float64 loops on the CPU)"`. */
  readonly name: string;
  /** Whether float16 tensors can be made on it. */
  readonly float16: boolean;
}

/** The statistics a batch is normalized with: its own (or its group's), or the running ones. */
export type Statistics<A> =
  | {
    /** Statistics of a batch: training, or evaluation of a state that tracks nothing. */
    readonly source: "batch";
    /** (count, mean, m2) per channel, in the device's own layout. */
    readonly moments: A;
  }
  | {
    /** Statistics of a state: evaluation. */
    readonly source: "running";
    /** Running mean, shape (C), float32. */
    readonly mean: A;
    /** Running variance, shape (C), float32. */
    readonly variance: A;
  };

/** What is applied after normalization, and eps. */
export interface Affine<A> {
  /** Scale per channel, shape (C), float32; null is 1. */
  readonly weight: A | null;
  /** Offset per channel, shape (C), float32; null is 0. */
  readonly bias: A | null;
  /** Added to the variance, in the square of the input's unit. */
  readonly eps: number;
}

/** Running statistics of a state. */
export interface RunningStats<A> {
  /** Running mean, shape (C), float32. */
  readonly runningMean: A;
  /** Running unbiased variance, shape (C), float32. */
  readonly runningVar: A;
}

/** Sums over the batch that the gradient of the input needs. */
export interface GradientSums<A> {
  /** (sumDy, sumDyXmu) per channel of this rank alone: gradients of weight and bias come from them. */
  readonly local: A;
  /** The same over the whole group, which is `local` itself without one; null in evaluation, where none is needed. */
  readonly total: A | null;
}

/** Gradients as bare arrays. */
export interface GradientArrays<A> {
  /** Gradient of the input, in the input's shape, dtype and format. */
  readonly gradInput: A;
  /** Gradient of the weight, shape (C), float32; null without a weight. */
  readonly gradWeight: A | null;
  /** Gradient of the bias, shape (C), float32; null without a bias. */
  readonly gradBias: A | null;
}

/** Gradients of a fused operation. */
export interface FusedGradientArrays<A> extends GradientArrays<A> {
  /** Gradient of the residual, in its own memory order; null without one. */
  readonly gradResidual: A | null;
}

/** What forward's epilogue was, for the way back. */
export interface Prologue<A> {
  /** Output of forward where it had an activation: dy counts as 0 unless it is positive. Else null. */
  readonly output: Tensor<A> | null;
  /** Memory order of the residual that was added, or null where none was. */
  readonly residualFormat: Format | null;
  /**
   * Whether `gradients` may write gradInput over gradOutput, whose array the caller frees next; {@linkcode Epilogue}
   * says how. It means nothing to `gradientSums`, which leaves gradOutput as it is.
   */
  readonly overwrite: boolean;
}

/** What a fused normalization does after the affine map, in this order. */
export interface Epilogue<A> {
  /** Added to the result; any format. */
  readonly residual: Tensor<A> | null;
  /** Whether negative results become 0. */
  readonly relu: boolean;
  /**
   * Whether the result may be written over the input, whose array the caller frees next; a device is free not to. The
   * result is a new array all the same: until the old one is freed the two share memory, which is free once both are.
   * A launch that throws has written nothing, and memory that a device has adopted is not its own to keep a result in.
   */
  readonly overwrite: boolean;
}

/**
 * Everything the library asks of a machine. Functions take arrays and tensors of this device, never free them, write to
 * none but what a fused one is told to `overwrite`, and return new arrays; what they cannot do they throw. Arrays are
 * objects, since ownership goes by identity. Using one of another device or one already freed is a TypeError that says so
 * ("another device", "freed").
 *
 * Per channel, `mean` and `variance` (biased) are those of the {@linkcode Statistics};
 * `s = 1/sqrt(variance + eps)`, or 0 where variance + eps is 0; `xhat = (x - mean) * s`. A term whose gradient is 0 is
 * left out, not multiplied, so that an infinite x does not make it NaN. Arithmetic in float32 may take a variance + eps
 * below 2^-126, the smallest normal float32, for 0; a negative one gives NaN.
 *
 * A tensor argument beside the input (gradOutput, residual, output) may have the other format; results have the
 * input's.
 */
export interface Device<A> extends Describing<A> {
  /** What the device says of itself. */
  readonly info: DeviceInfo;

  /** Copies values onto the device, rounded to `dtype` (`"float32"` by default). */
  readonly upload: (values: Float32Array, dtype?: DType) => A;
  /** Copies an array back, as float32 whatever its storage. */
  readonly download: (array: A) => Promise<Float32Array<ArrayBuffer>>;
  /**
   * Gives arrays back; using one afterwards throws. All are checked before the first is freed; one named twice counts
   * once. What was launched before, in a batch that is still open too, sees them as they were.
   */
  readonly free: (...arrays: A[]) => void;
  /** Whether a value is a live array of this device. */
  readonly owns: (value: unknown) => value is A;

  /** Moments (count, mean, m2) per channel of this rank's batch; all 0 for an empty one. */
  readonly moments: (input: Tensor<A>) => A;
  /** Reads moments as the wire [count, mean C, m2 C]. */
  readonly momentsToWire: (moments: A) => Promise<Float64Array<ArrayBuffer>>;
  /** Writes moments from the wire, in the layout that `moments` has. */
  readonly momentsFromWire: (wire: Float64Array) => A;
  /** `xhat * weight + bias`. */
  readonly normalize: (input: Tensor<A>, statistics: Statistics<A>, affine: Affine<A>) => A;
  /** `(1 - factor) * old + factor * observed`, where the observed variance is m2 / (count - 1). */
  readonly updateRunningStats: (
    running: RunningStats<A>,
    moments: A,
    factor: number,
  ) => RunningStats<A>;
  /** (sumDy, sumDyXmu) per channel of this rank: sum of dy, sum of dy * (x - mean). */
  readonly gradientSums: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
  ) => A;
  /** Reads gradient sums as the wire [sumDy C, sumDyXmu C]. */
  readonly sumsToWire: (sums: A) => Promise<Float64Array<ArrayBuffer>>;
  /** Writes gradient sums from the wire, in the layout that `gradientSums` has. */
  readonly sumsFromWire: (wire: Float64Array) => A;
  /**
   * `gradInput = weight*s * (dy - sumDy/count - (x-mean) * s^2 * sumDyXmu/count)` from the total sums, or
   * `weight*s*dy` without; `gradWeight = s * sumDyXmu` and `gradBias = sumDy` from the local ones.
   */
  readonly gradients: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    sums: GradientSums<A>,
    affine: Affine<A>,
  ) => GradientArrays<A>;

  /** `x + scale * y` element by element, in the dtype of x; both of one length. */
  readonly addScaled: (x: A, y: A, scale: number) => A;
  /** `max(x, 0)` element by element; NaN stays NaN, -0 becomes 0. */
  readonly relu: (x: A) => A;
  /**
   * `dy` where `output > 0`, else 0, as where output is NaN (a plain copy of dy where output is null), in memory order
   * `format`.
   */
  readonly gate: (gradOutput: Tensor<A>, output: Tensor<A> | null, format: Format) => A;

  /**
   * Launches all of a synchronous body at once; without it each operation is launched by itself. The body launches
   * through the handle that it is given, whose `batch` joins this one. Readbacks that it starts resolve after the launch.
   * A body that throws launches nothing; what its arrays hold is undefined.
   */
  readonly batch?: <R>(body: (device: Device<A>) => R) => R;
  /**
   * Makes an array of memory that somebody else owns, without a copy; what stands for memory is the device's own matter.
   * The array is freed like any other, the memory is not.
   */
  readonly adopt?: (memory: unknown, info: ArrayInfo) => A;
  /** `download` of several arrays in one transfer, their elements side by side; without it each is read by itself. */
  readonly downloadAll?: (arrays: readonly A[]) => Promise<Float32Array<ArrayBuffer>>;
  /** Operations in one pass that the ones above need several for. */
  readonly fused?: FusedOperations<A>;
  /** Reductions whose parts are on their way to other ranks while the next ones are computed. */
  readonly overlapped?: OverlappedOperations<A>;
}

/**
 * Reductions in parts of the channels, for synchronised calls: each part has a readback and a collective of its own, which
 * overlap with the statistics of the next. Worth it only where a readback takes less than the statistics do.
 */
export interface OverlappedOperations<A> {
  /** Number of parts, the same for every tensor, since ranks match collectives one by one; some may have no channels. */
  readonly parts: number;
  /** `moments`, and the wire of each part's channels. */
  readonly moments: (input: Tensor<A>) => InParts<A>;
  /** `gradientSums`, with dy as a prologue leaves it where there is one, and the wire of each part's channels. */
  readonly gradientSums: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    prologue: Prologue<A> | null,
  ) => InParts<A>;
}

/** A reduction in parts. */
export interface InParts<A> {
  /** All of it. */
  readonly array: A;
  /** The wires of the parts, whose channels follow each other. */
  readonly wires: readonly Promise<Float64Array<ArrayBuffer>>[];
}

/** Operations in one pass over memory that a device may offer; the library does without where it does not. */
export interface FusedOperations<A> {
  /** `normalize`, then the epilogue, which may be nothing but `overwrite`. */
  readonly normalize: (
    input: Tensor<A>,
    statistics: Statistics<A>,
    affine: Affine<A>,
    epilogue: Epilogue<A>,
  ) => A;
  /** `gradientSums`, with dy as the prologue leaves it. */
  readonly gradientSums: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    prologue: Prologue<A>,
  ) => A;
  /** `gradients`, with dy as the prologue leaves it, which is the gradient of the residual too. */
  readonly gradients: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    sums: GradientSums<A>,
    affine: Affine<A>,
    prologue: Prologue<A>,
  ) => FusedGradientArrays<A>;
}
