/**
 * The first of the two effects: a device is a frozen record of functions over its own array type. Types only; the
 * interpreters are `reference/device.ts` and those under `kernels/`.
 *
 * Everything that batch norm does is a pass: a reduction over each channel, coefficients per channel, a linear combination
 * of tensors. A pass is a record, {@linkcode Pass} has all the fields there are, and each operation takes those that
 * concern it. So a new option is one field here and the kernels that honour it; a device says in `info.passes` which of
 * the optional fields it honours, and a call that needs another one is an error before anything is launched.
 *
 * Decisions:
 * - `gradients` gives those of input, weight and bias from one operation, out of the local and the total sums: a GPU
 *   then needs two dispatches per backward. Arrays that an operation returns together may share one allocation.
 * - Statistics carry their source: a batch's moments in the device's own layout, or running mean and variance. Kernels
 *   do not know whether moments came from this rank or from the group.
 * - `downloadAll`, many arrays in one transfer, is optional; without it each is read by itself. So is `adopt`, by which
 *   memory of the caller's enters: as an operation, so that a region's handle owns what was wrapped through it. The way
 *   back needs no device, as an array knows where it lies.
 */

import type { Activation, Rectified } from "./activation.ts";
import type { ArrayInfo, Describing, DType, Format, Tensor } from "./tensor.ts";
import type { WireFormat } from "./wire.ts";

/** An optional field of a pass that a device may lack. */
export type PassOption =
  | "residual"
  | "activation"
  | "rectifier"
  | "weights"
  | "tangents"
  | "secondOrder"
  | "arrange";

/** What a device says of itself. */
export interface DeviceInfo {
  /** What computes, for people: `"reference (float64 loops on the CPU)"`. */
  readonly name: string;
  /** Whether float16 tensors can be made on it. */
  readonly float16: boolean;
  /** The optional fields of a {@linkcode Pass} that it honours. */
  readonly passes: readonly PassOption[];
  /** Whether results have the same bits for any number of ranks, partition, order, engine, format and number of threads. */
  readonly exact?: boolean;
}

/** The statistics a batch is normalized with: its own (or its group's), or the running ones. */
export type Statistics<A> =
  | {
    /** Statistics of a batch: training, or evaluation of a state that tracks nothing. */
    readonly source: "batch";
    /** (count, mean, m2) per channel, in the device's own layout; the count of weighted ones is the sum of the weights. */
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
  /**
   * (sumDy, sumDyXmu) per channel of this rank alone, as `gradientSums` made them with the same statistics: gradients of
   * weight and bias come from them.
   */
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
  /** Gradient of the residual, in its own memory order; null without one. */
  readonly gradResidual: A | null;
  /** `gradWeight` of the total sums, where there are any; exact devices have it. */
  readonly groupWeight?: A | null;
  /** `gradBias` of the total sums, where there are any; exact devices have it. */
  readonly groupBias?: A | null;
}

/** All fields of a pass over a batch. */
export interface Pass<A> {
  /** The batch; results have its shape, dtype and format. */
  readonly input: Tensor<A>;
  /**
   * How much each position counts in the statistics: shape (N, 1) or (N, 1, ...spatial), float32 or float16, finite and >= 0.
   * A term whose weight is 0 is left out, not multiplied.
   */
  readonly weights?: Tensor<A>;
  /** What it is normalized with. */
  readonly statistics: Statistics<A>;
  /** Weight, bias and eps. */
  readonly affine: Affine<A>;
  /** Added after the affine map; any format. */
  readonly residual?: Tensor<A>;
  /**
   * Applied last: negative results become 0; NaN stays NaN, -0 becomes 0. By a record negative ones are multiplied, and all are
   * `maxValue` at most, which takes the pass "rectifier".
   */
  readonly activation?: Activation;
  /** Gradient of the output; any format. */
  readonly gradOutput: Tensor<A>;
  /**
   * Output of forward where it had an activation, any format: dy counts as 0 unless it is positive, or where it is NaN. By a record
   * dy counts as 0 from its `maxValue` on, as the output's dtype has it, and `negativeSlope` times where the output is not positive.
   */
  readonly output?: Rectified<A>;
  /** Memory order of the residual that was added, where one was. */
  readonly residualFormat?: Format;
  /** Sums of this rank, and of all ranks. */
  readonly sums: GradientSums<A>;
  /**
   * Whether the result may be written over the input (`normalize`) or gradOutput (`gradients`), whose array the caller
   * frees next; a device is free not to. The result is a new array all the same: until the old one is freed the two share
   * memory, which is free once both are. A launch that throws has written nothing, and memory that a device has adopted is
   * not its own to keep a result in.
   */
  readonly overwrite?: boolean;
}

/** Directions that a normalization is followed in: those of its input and of all that is added or multiplied. */
export interface Directions<A> {
  /** Direction of the input, in its shape and dtype, any format; missing where it stays as it is. */
  readonly input?: Tensor<A>;
  /** Direction of the weight, shape (C), float32, or null. */
  readonly weight: A | null;
  /** Direction of the bias, shape (C), float32, or null. */
  readonly bias: A | null;
  /** Direction of the residual, in the input's shape and dtype, any format. */
  readonly residual?: Tensor<A>;
}

/** What a directional derivative takes. */
export interface TangentsPass<A>
  extends Pick<Pass<A>, "input" | "statistics" | "affine" | "output" | "weights"> {
  /** What is followed. */
  readonly directions: Directions<A>;
  /**
   * `gradientSums` of the input's direction, by the weights but without the output, over the group; null in evaluation and
   * without one.
   */
  readonly total: A | null;
  /** Gradients of the statistics of a batch, over the group: (C), float32. */
  readonly moments?: { readonly mean: A | null; readonly variance: A | null };
}

/** What the gradients of gradients take; sums are `gradientSums` with the same statistics, by the weights where it says so. */
export interface SecondPass<A> extends SumsPass<A>, Pick<Pass<A>, "affine"> {
  /** Gradients of gradInput, gradWeight, gradBias and gradResidual. */
  readonly directions: Directions<A> & { readonly input: Tensor<A> };
  /** (S1, S2) over the group: those of gradOutput; null in evaluation. */
  readonly total: A | null;
  /** (A, B): those of the input's direction, by the weights, without the output; null in evaluation. */
  readonly along: GradientSums<A> | null;
  /** (., D): those of gradOutput in the place of the input, about 0, and of the input's direction in that of gradOutput. */
  readonly products: GradientSums<A>;
  /** (E, F): (S1, S2) of each rank times its direction of the weight, over the group; null for those of `total`. */
  readonly weighted: A | null;
}

/** Gradients of gradients as bare arrays. */
export interface SecondArrays<A> {
  /** Gradient of the input, in the input's shape, dtype and format. */
  readonly gradInput: A;
  /** Gradient of gradOutput, in the input's shape, dtype and format. */
  readonly gradGradOutput: A;
  /** Gradient of the weight, shape (C), float32; null without a weight. */
  readonly gradWeight: A | null;
}

/** What the reduction of forward takes. */
export type MomentsPass<A> = Pick<Pass<A>, "input" | "weights">;

/** What the combination of forward takes. */
export type NormalizePass<A> = Pick<
  Pass<A>,
  "input" | "statistics" | "affine" | "residual" | "activation" | "overwrite"
>;

/** What the reduction of backward takes. */
export type SumsPass<A> = Pick<
  Pass<A>,
  "input" | "gradOutput" | "statistics" | "output" | "weights"
>;

/** What the combination of backward takes. */
export type GradientsPass<A> =
  & SumsPass<A>
  & Pick<Pass<A>, "affine" | "sums" | "residualFormat" | "overwrite">;

/** How running statistics advance. */
export interface RunningStatsPass<A> {
  /** What they were. */
  readonly running: RunningStats<A>;
  /** Moments of the batch that is observed; of two values per channel or more, or weighted. */
  readonly moments: A;
  /** Weight of the observed batch. */
  readonly factor: number;
}

/** Samples of tensors side by side. */
export interface ArrangePass<A> {
  /**
   * Samples [from, to) of tensors of one dtype and one memory order, whose shapes are equal but for the number of samples; at
   * least one part.
   */
  readonly parts: readonly {
    readonly input: Tensor<A>;
    readonly from: number;
    readonly to: number;
  }[];
}

/** A sum of two arrays. */
export interface AddScaledPass<A> {
  /** The first, whose dtype the result has. */
  readonly x: A;
  /** The second, of the same length. */
  readonly y: A;
  /** Factor of the second. */
  readonly scale: number;
}

/**
 * Everything the library asks of a machine. Functions take arrays and tensors of this device, never free them, write to
 * none but what a pass allows them to `overwrite`, and return new arrays, alone or in a record; what they cannot do they
 * throw, before they have changed anything. Arrays are objects, since ownership goes by identity. Using one of another
 * device or one already freed is a TypeError that says so ("another device", "freed"); so is one of another length than
 * its place in the pass has.
 *
 * Per channel, `mean` and `variance` (biased) are those of the {@linkcode Statistics};
 * `s = 1/sqrt(variance + eps)`, or 0 where variance + eps is 0, or the count; `xhat = (x - mean) * s`. A term whose gradient is 0 is
 * left out, not multiplied, so that an infinite x does not make it NaN. Arithmetic in float32 may take a variance + eps
 * below 2^-126, the smallest normal float32, for 0; a negative one gives NaN.
 *
 * Moments and gradient sums are arrays in the device's own layout, which become a wire by `toWire` and come from one by
 * `fromWire`.
 */
export interface Device<A> extends Describing<A> {
  /** What the device says of itself. */
  readonly info: DeviceInfo;
  /**
   * What its statistics travel as where that is not the ordinary format, by the ordinary one's name: ranks meet only with ranks whose
   * statistics travel alike. Exact devices have it.
   */
  readonly wires?: Readonly<Record<string, WireFormat>>;

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

  /**
   * Moments (count, mean, m2) per channel of this rank's batch; all 0 for an empty one. By weights w they are
   * (sum of w, sum of w*x / sum of w, sum of w*(x - mean)^2), an array of the format "weighted moments", whose count is NaN
   * where a weight is negative, infinite or NaN.
   */
  readonly moments: (pass: MomentsPass<A>) => A;
  /** `xhat * weight + bias`, then the residual, then the activation. */
  readonly normalize: (pass: NormalizePass<A>) => A;
  /** (sumDy, sumDyXmu) per channel of this rank: sum of dy, sum of dy * (x - mean); by weights w of w*dy in the place of dy. */
  readonly gradientSums: (pass: SumsPass<A>) => A;
  /**
   * `gradInput = weight*s * (dy - sumDy/count - (x-mean) * s^2 * sumDyXmu/count)` from the total sums, or
   * `weight*s*dy` without; by weights w it is `weight*s * (dy - w * (sumDy/count + (x-mean) * s^2 * sumDyXmu/count))`.
   * `gradWeight = s * sumDyXmu` and `gradBias = sumDy` from the local ones; `gradResidual = dy`.
   */
  readonly gradients: (pass: GradientsPass<A>) => GradientArrays<A>;
  /**
   * `weight*s * (t - sumT/count - (x-mean) * s^2 * sumTXmu/count) + dweight * xhat + dbias + dresidual` for the directions t,
   * dweight, dbias and dresidual, where the output is positive, else 0; without the total `weight*s*t + ...`. To it come
   * `dmean/count + 2*(x-mean)*dvariance/count` of the gradients of moments, by weights w times that. In `info.passes` it is
   * "tangents", and with gradients of moments "secondOrder".
   */
  readonly tangents?: (pass: TangentsPass<A>) => A;
  /**
   * With the directions a, q, b and r, and dy behind the output's gate: `gradGradOutput` is what `tangents` gives of them; for
   * the others see `docs/numerics.md`, with N, S1, S2, A, B, D, E, F as above. In `info.passes` it is "secondOrder", and comes with
   * `tangents`.
   */
  readonly secondGradients?: (pass: SecondPass<A>) => SecondArrays<A>;
  /**
   * `(1 - factor) * old + factor * observed`, where the observed variance is m2 / (count - 1), or m2 / count of weighted moments
   * of a count of 1 or less. Where the count is 0 or NaN the old ones.
   */
  readonly updateRunningStats: (pass: RunningStatsPass<A>) => RunningStats<A>;
  /** `x + scale * y` element by element. */
  readonly addScaled: (pass: AddScaledPass<A>) => A;
  /**
   * A part of a batch, or a batch of its parts. Of one part the result may share the memory of the input, whichever is freed
   * first, so neither is given to a pass to `overwrite`. In `info.passes` it is "arrange".
   */
  readonly arrange?: (pass: ArrangePass<A>) => A;

  /** Reads moments or gradient sums as their wire: a new array, in whose place a total may come. */
  readonly toWire: (array: A) => Promise<Float64Array<ArrayBuffer>>;
  /** The same without waiting, on devices that compute on the caller's thread; for blocking groups. */
  readonly toWireNow?: (array: A) => Float64Array<ArrayBuffer>;
  /** Writes a wire of a format as the array that `toWire` would read it from. */
  readonly fromWire: (format: WireFormat, wire: Float64Array) => A;
  /** Folds two arrays of one format, as its `combine` folds wires; moments of two sets become those of their union. */
  readonly merge: (a: A, b: A) => A;

  /**
   * Launches all of a synchronous body at once; without it each operation is launched by itself. The body launches
   * through the handle that it is given, whose `batch` joins this one. Readbacks that it starts resolve after the launch.
   * A body that throws launches nothing; what its arrays hold is undefined.
   */
  readonly batch?: <R>(body: (device: Device<A>) => R) => R;
  /**
   * Runs a synchronous body, and frees what operations made in it where it throws. Without it the library wraps the device, and
   * notes what each operation returns: a fifth of a small call.
   */
  readonly allOrNothing?: <R>(body: () => R) => R;
  /**
   * Makes an array of memory that somebody else owns, without a copy; what stands for memory is the device's own matter.
   * The array is freed like any other, the memory is not.
   */
  readonly adopt?: (memory: unknown, info: ArrayInfo) => A;
  /** `download` of several arrays in one transfer, their elements side by side; without it each is read by itself. */
  readonly downloadAll?: (arrays: readonly A[]) => Promise<Float32Array<ArrayBuffer>>;
}
