/**
 * Arrays as a pass gives them: the one place where each is checked against its place in the pass, before a kernel gets it. What
 * is none of the device, freed, of another kind, length or storage is a TypeError.
 */

import { type Activation, type Bounds, boundsOf, isRelu } from "../../lib/activation.ts";
import type { Statistics } from "../../lib/device.ts";
import { checkLayout, type DType, elements, extents, type Tensor } from "../../lib/tensor.ts";
import type { Source } from "../wgsl/statistics.ts";
import { UNWEIGHTED, type Weighing } from "../wgsl/weights.ts";
import {
  type ContentsOf,
  type Elements,
  type Slot,
  type Statistic,
  type StatisticKind,
  type WebGpuArray,
  WIRES,
} from "./arrays.ts";
import type { Context } from "./context.ts";
import type { Laid } from "./plan.ts";

type A = WebGpuArray;
type Given = Laid<Slot<Elements>>;

/** The tensor that a pass is over. */
export function inputOf(context: Context, input: Tensor<A>): Given {
  checkLayout(input, "launch the pass", "input");
  return laid(context, input);
}

/** A tensor of the same shape and dtype, where there is one. */
export function alike(context: Context, input: Tensor<A>, tensor: Tensor<A>): Given;
export function alike(context: Context, input: Tensor<A>, tensor?: Tensor<A>): Given | null;
export function alike(context: Context, input: Tensor<A>, tensor?: Tensor<A>): Given | null {
  if (tensor === undefined) return null;
  const { shape, dtype } = tensor;
  if (dtype === input.dtype && sameItems(shape, input.shape)) return laid(context, tensor);
  throw new TypeError(
    `Cannot launch the pass as its tensors must be alike: current ones are ` +
      `(${input.shape.join(", ")}) ${input.dtype} and (${shape.join(", ")}) ${dtype}`,
  );
}

function laid({ arrays, recorder }: Context, { data, shape, dtype, format }: Tensor<A>): Given {
  return { slot: arrays.slot(data, recorder.batch, "elements", elements(shape), dtype), format };
}

/** Weights of the examples of a pass. */
export interface GivenWeights extends Weighing {
  readonly slot: Slot<Elements>;
}

/** Weights of the examples of an input, where there are some; those of single places are no sample's. */
export function weightsOf(
  { arrays, recorder }: Context,
  { shape }: Tensor<A>,
  given: Tensor<A> | undefined,
): GivenWeights | null {
  if (given === undefined) return null;
  const { batch, inner } = extents(shape);
  const perSample = given.shape.length === 2;
  const { data, dtype } = given;
  const length = perSample ? batch : batch * inner;
  const slot = arrays.slot(data, recorder.batch, "elements", length, dtype);
  return {
    slot,
    weights: perSample && inner !== 1 ? "perSample" : "perPlace",
    weightsDtype: dtype,
  };
}

/** A kernel's options of its weights. */
export function weighing(given: GivenWeights | null): Weighing {
  const { weights, weightsDtype } = given ?? UNWEIGHTED;
  return { weights, weightsDtype };
}

/** Whether two lists, such as shapes, are of the same items. */
export function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a === b || (a.length === b.length && a.every((item, i) => item === b[i]));
}

/** A vector of so many channels, where there is one. */
export function vector(context: Context, array: A, channels: number): Slot<Elements>;
export function vector(context: Context, array: A | null, channels: number): Slot<Elements> | null;
export function vector(
  { arrays, recorder }: Context,
  array: A | null,
  channels: number,
): Slot<Elements> | null {
  return array && arrays.slot(array, recorder.batch, "elements", channels, "float32");
}

/** A statistic of one kind or either, and of so many channels or any number. */
export function statistic<K extends StatisticKind = StatisticKind>(
  { arrays, recorder }: Context,
  array: A,
  kind = statisticKind(arrays.kindOf(array)) as K,
  channels?: number,
): Slot<ContentsOf<K>> {
  const length = channels === undefined ? undefined : WIRES[kind].length(channels);
  return arrays.slot(array, recorder.batch, kind, length);
}

function statisticKind(kind: StatisticKind | "elements"): StatisticKind {
  if (kind !== "elements") return kind;
  throw new TypeError(
    "Cannot use the array as statistics: it holds the elements of a tensor or a vector",
  );
}

/** Statistics as the kernels take them. */
export interface StatisticsSlots {
  readonly source: Source;
  /** The arrays that they are, and the same by the kernels' names. */
  readonly handles: readonly A[];
  readonly slots: Readonly<Record<string, Slot>>;
  readonly slices: number;
}

/** Moments, of values that count alike or by weight. */
export function momentsOf(
  context: Context,
  array: A,
  channels?: number,
): Slot<Statistic<"moments" | "weighted moments">> {
  const kind = context.arrays.kindOf(array) === "weighted moments" ? "weighted moments" : "moments";
  return statistic(context, array, kind, channels);
}

/** The statistics of a pass. */
export function statisticsOf(
  context: Context,
  statistics: Statistics<A>,
  channels: number,
): StatisticsSlots {
  if (statistics.source === "running") {
    const { mean, variance } = statistics;
    const [m, v] = [mean, variance].map((array) => vector(context, array, channels));
    return {
      source: "running",
      handles: [mean, variance],
      slots: { mean: m, variance: v },
      slices: 1,
    };
  }
  const moments = momentsOf(context, statistics.moments, channels);
  const { slices } = moments.contents;
  return { source: "batch", handles: [statistics.moments], slots: { moments }, slices };
}

/** The bounds of an activation as kernels take them, which know no infinity; undefined for plain ReLU. */
export function boundsIn(activation: Activation, dtype: DType): Bounds | undefined {
  const bounds = boundsOf(activation, dtype);
  if (isRelu(bounds)) return undefined;
  return { ...bounds, maxValue: Math.min(bounds.maxValue, LARGEST) };
}

/** The largest float32. */
const LARGEST = (2 - 2 ** -23) * 2 ** 127;
