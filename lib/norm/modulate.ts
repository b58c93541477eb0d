/**
 * Scale and offset per sample: what conditional batch norm, FiLM and AdaIN do behind a normalization.
 *
 * A map of its own, not a field of forward's pass: gradients then go back through whatever normalized the input, of this
 * rank or of a group, by the chain rule, so that sums over `scale * dy` need no format of their own. And no kernel: channels
 * first, the N * C rows of a batch are the channels of one sample; channels last each sample is a batch.
 */

import { type Activation, type Rectified, rectifiedBy } from "../activation.ts";
import { checkDevice, checkOptions } from "../check_effects.ts";
import { checkOneOf } from "../check_value.ts";
import type { Device, Pass } from "../device.ts";
import { compose, region } from "../ownership.ts";
import { checkTensor, elements, type Format, type Tensor, tensorLike } from "../tensor.ts";
import { listed, wrongKind, wrongPair } from "../words.ts";
import { checkActivates, checkAlike, checkPass } from "./check_call.ts";
import { checkOutput, SAVED_FORMATS } from "./check_saved.ts";
import { joined, samplesOf } from "./samples.ts";

/** Numbers of each sample's channels: tensors of shape (N, C), float32, any format; left out for 1 and 0. */
export interface Modulation<A> {
  /** What each channel of each sample is multiplied by. */
  readonly scale?: Tensor<A>;
  /** What is added to it. */
  readonly offset?: Tensor<A>;
}

/** What follows the map. */
export interface ModulateOptions<A> {
  /** Applied last, as `batchNormForward` does. */
  readonly activation?: Activation;
  /** Added before the activation; shape and dtype of the input, any format. */
  readonly residual?: Tensor<A>;
}

/** What `modulateBackward` needs. Borrows input, scale and offset, and with an activation the output. */
export interface ModulateSaved<A> {
  /** Sets it apart from what a normalization saves. */
  readonly kind: "modulated";
  /** The input. */
  readonly input: Tensor<A>;
  /** Scale and offset. */
  readonly modulation: Modulation<A>;
  /** The output where an activation was applied; else null. */
  readonly output: Rectified<A> | null;
  /** Memory order of the residual that was added, or null where none was. */
  readonly residualFormat: Format | null;
}

/** A modulated batch. */
export interface Modulated<A> {
  /** The result, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** What backward needs. */
  readonly saved: ModulateSaved<A>;
}

/** Gradients of a modulation. */
export interface ModulateBackward<A> {
  /** scale * dy, in the input's shape, dtype and format: the gradOutput of what normalized the input. */
  readonly gradInput: Tensor<A>;
  /** Sum of dy * input over the places of each sample's channel, shape (N, C), float32; null without a scale. */
  readonly gradScale: Tensor<A> | null;
  /** Sum of dy over them, shape (N, C), float32; null without an offset. */
  readonly gradOffset: Tensor<A> | null;
  /** dy behind the activation, in the residual's format; missing where there was none. */
  readonly gradResidual?: Tensor<A>;
}

const FORWARD = "modulate the batch";
const BACKWARD = "compute the gradients of the modulation";

/**
 * Multiplies each channel of each sample by a number of its own and adds another: y[n, c, ...] = scale[n, c] * x[n, c, ...] +
 * offset[n, c], then the residual and the activation.
 *
 * Behind a normalization it is conditional batch norm (de Vries et al. 2017, "Modulating early visual processing by
 * language", section 3; Perez et al. 2018, "FiLM"): make the state with `affine: false`, or keep its weight and bias below.
 * Synchronous, and without a group: it is the same in training, in evaluation and on every rank.
 *
 * @param input the normalized batch, logical shape (N, C, ...spatial), float32 or float16; N may be 0
 * @param modulation scale and offset, each a tensor of shape (N, C), float32
 * @param effects `device`: where everything lives
 * @returns output and what backward needs, both frozen
 * @throws TypeError where shapes, dtypes or devices do not fit; DeviceError "unsupported" where tensors lie channels last
 * and the device cannot take samples apart
 *
 * @example Conditional batch norm
 * ```ts
 * import { batchNormForward, initBatchNorm, modulate, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { affine: false, eps: 0 });
 * const { output } = batchNormForward(state, tensor(device, [1, 3], [2, 1]), { device });
 * const scale = tensor(device, [2, 10], [2, 1]);
 * const y = modulate(output, { scale }, { device }).output;
 * assert.deepEqual(await toArray(device, y), Float32Array.of(-2, 10));
 * ```
 */
export function modulate<A>(
  input: Tensor<A>,
  modulation: Modulation<A>,
  effects: { readonly device: Device<A> },
  options: ModulateOptions<A> = {},
): Modulated<A> {
  const { device } = checkDevice(effects, FORWARD);
  checkOptions(options, ["activation", "residual"], FORWARD);
  checkModulation(device, input, modulation, FORWARD);
  const { activation, residual } = options;
  checkActivates(device, activation, FORWARD);
  if (residual !== undefined) {
    checkPass(device, "residual", FORWARD);
    checkAlike(device, residual, input, FORWARD, "residual");
  }
  const output = launched(device, (d) => {
    const views = viewsOf(d, [input, residual], modulation);
    const made = views.map(({ tensors: [input, residual], ...pass }) =>
      tensorLike(input!, d.normalize({ ...pass, input: input!, residual, activation }))
    );
    return joined(d, made, input);
  });
  const { scale, offset } = modulation;
  const saved = Object.freeze({
    kind: "modulated",
    input,
    modulation: Object.freeze({ scale, offset }),
    output: activation === undefined ? null : rectifiedBy(activation, output),
    residualFormat: residual?.format ?? null,
  });
  return Object.freeze({ output, saved });
}

/**
 * Computes the gradients of {@linkcode modulate}; gradInput goes on into the backward of what normalized its input.
 *
 * @param saved what `modulate` returned; borrowed, and valid for another call
 * @param gradOutput gradient of the output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws TypeError where saved or gradOutput do not fit, or borrowed arrays were freed
 *
 * @example
 * ```ts
 * import { modulate, modulateBackward, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 3, 4], [2, 1, 2]);
 * const { saved } = modulate(x, { scale: tensor(device, [2, 10], [2, 1]) }, { device });
 * const { gradScale } = modulateBackward(saved, x, { device });
 * assert.deepEqual(await toArray(device, gradScale!), Float32Array.of(5, 25));
 * ```
 */
export function modulateBackward<A>(
  saved: ModulateSaved<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
): ModulateBackward<A> {
  const { device } = checkDevice(effects, BACKWARD);
  if (saved?.kind !== "modulated") {
    const kind = (saved as { readonly kind?: unknown } | undefined)?.kind;
    throw wrongKind(BACKWARD, "saved must be that of modulate", kind, "kind");
  }
  const { input, modulation, output, residualFormat } = saved;
  checkModulation(device, input, modulation, BACKWARD);
  checkAlike(device, gradOutput, input, BACKWARD, "gradOutput");
  checkOutput(device, output, input, BACKWARD);
  checkOneOf(residualFormat, SAVED_FORMATS, "the saved residualFormat", BACKWARD);
  const { scale, offset } = modulation;
  const result = launched(device, (d) => {
    const views = viewsOf(d, [input, output ?? undefined, gradOutput], modulation, residualFormat);
    const made = views.map(({ tensors: [input, part, gradOutput], ...view }) => {
      const output = part && rectifiedBy(saved.output!.activation, part);
      const pass = { ...view, input: input!, output, gradOutput: gradOutput! };
      const local = d.gradientSums(pass);
      return {
        like: input!,
        ...d.gradients({
          ...{ ...pass, sums: { local, total: null } },
          residualFormat: residualFormat ?? undefined,
        }),
      };
    });
    const row = (like: Tensor<A>, data: A) =>
      tensorLike({ ...like, shape: [made.length === 1 ? like.shape[0] : 1, like.shape[1]] }, data);
    const rows = (like: Tensor<A> | undefined, list: readonly (A | null)[]) =>
      like && joined(d, list.map((data) => row(like, data ?? d.upload(new Float32Array(0)))), like);
    return {
      gradInput: joined(d, made.map(({ like, gradInput }) => tensorLike(like, gradInput)), input),
      gradScale: rows(scale, made.map(({ gradWeight }) => gradWeight)),
      gradOffset: rows(offset, made.map(({ gradBias }) => gradBias)),
      gradResidual: residualFormat && joined(
        d,
        made.map(({ like, gradResidual }) =>
          tensorLike({ ...like, format: residualFormat }, gradResidual!)
        ),
        { ...input, format: residualFormat },
      ),
    };
  });
  const { gradInput, gradScale = null, gradOffset = null, gradResidual } = result;
  return Object.freeze({
    ...{ gradInput, gradScale, gradOffset },
    ...(gradResidual && { gradResidual }),
  });
}

/** Launches a body at once, and frees what it makes beside its result. */
function launched<A, R>(device: Device<A>, body: (device: Device<A>) => R): R {
  return region(device, (scope) => compose(scope, body));
}

/** A part of a batch whose channels have one scale and one offset each. */
interface View<A> extends Pick<Pass<A>, "statistics" | "affine"> {
  readonly tensors: readonly (Tensor<A> | undefined)[];
}

/** All rows of the batch as channels where every tensor lies so, else each sample as a batch. */
function viewsOf<A>(
  device: Device<A>,
  tensors: readonly (Tensor<A> | undefined)[],
  { scale, offset }: Modulation<A>,
  other: Format | null = null,
): readonly View<A>[] {
  const [samples, channels, ...spatial] = tensors[0]!.shape;
  const view = (count: number, weight: A | null, bias: A | null, tensors: View<A>["tensors"]) => {
    const vector = (value: number) => device.upload(new Float32Array(count).fill(value));
    // Nothing is normalized: mean 0, variance 1.
    const statistics = { source: "running", mean: vector(0), variance: vector(1) } as const;
    return { tensors, statistics, affine: { weight, bias, eps: 0 } };
  };
  const flat = channels === 1 || elements(spatial) === 1;
  const first = tensors.every((tensor) => !tensor || tensor.format === "channelsFirst");
  if (samples === 0) return [view(channels, null, null, tensors)];
  if (flat || (first && other !== "channelsLast")) {
    const shape = Object.freeze([1, samples * channels, ...spatial]);
    const rows = tensors.map((tensor) =>
      tensor && Object.freeze({ ...tensor, shape, format: "channelsFirst" } as const)
    );
    return [view(samples * channels, scale?.data ?? null, offset?.data ?? null, rows)];
  }
  const sampleOf = <T extends Tensor<A> | undefined>(tensor: T, n: number) =>
    tensor && samplesOf(device, tensor, n, n + 1);
  const { statistics, affine } = view(channels, null, null, []);
  return Array.from({ length: samples }, (_, n) => {
    const [weight, bias] = [scale, offset].map((rows) => sampleOf(rows, n)?.data ?? null);
    const all = tensors.map((tensor) => sampleOf(tensor, n));
    return { tensors: all, statistics, affine: { ...affine, weight, bias } };
  });
}

function checkModulation<A>(
  device: Device<A>,
  input: Tensor<A>,
  modulation: Modulation<A>,
  action: string,
): void {
  checkTensor(device, input, action, "input");
  checkOptions(modulation, ["scale", "offset"], action);
  for (const name of ["scale", "offset"] as const) {
    const tensor = modulation[name];
    if (tensor === undefined) continue;
    checkTensor(device, tensor, action, name);
    const { shape, dtype } = tensor;
    const [samples, channels] = input.shape;
    if (shape.length !== 2 || shape[0] !== samples || shape[1] !== channels) {
      const wanted = `the ${name}'s shape must be the input's (N, C)`;
      throw wrongPair(action, wanted, listed(shape), listed([samples, channels]));
    }
    if (dtype === "float32") continue;
    throw wrongPair(action, `the ${name} must be float32`, dtype, "float32");
  }
}
