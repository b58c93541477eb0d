/** A plan in words that can be printed: how a device would work on tensors of a shape, without doing it. */

import { checkLayout, type DType, elements, type Format } from "../../lib/tensor.ts";
import type { Pack } from "../wgsl/tiles.ts";
import type { StatisticKind } from "./arrays.ts";
import { layMask } from "./forward.ts";
import { type Limits, planWalk, tiling, type WalkOver, type WalkPlan } from "./plan.ts";

/** What is asked about, beside a shape. */
export interface ExplainOptions {
  /** Storage of the elements; `"float32"` by default. */
  readonly dtype?: DType;
  /** Memory order; `"channelsFirst"` by default. */
  readonly format?: Format;
  /** Whether there is a ReLU without a slope or a bound, whose gate backward reads; false by default. */
  readonly activation?: boolean;
}

/** How one kernel runs over the tensors. */
export interface KernelPlan {
  /** Launches: one, or one per window. */
  readonly launches: number;
  /** Workgroups of all launches. */
  readonly workgroups: number;
  /** Invocations of each workgroup. */
  readonly invocations: number;
  /** Channels that a workgroup sees. */
  readonly channels: number;
  /** Parts that the values of a channel are cut into. */
  readonly slices: number;
}

/** A plan. */
export interface Plan {
  /** What was asked about: the logical shape, */
  readonly shape: readonly number[];
  /** the storage of the elements, */
  readonly dtype: DType;
  /** and their memory order. */
  readonly format: Format;
  /** What an invocation takes at a time: one element, or four neighbouring places or channels. */
  readonly pack: Pack;
  /** How often a direction moves a tensor of this size from or to memory, with statistics of the batch; masks aside. */
  readonly passes: { readonly forward: number; readonly backward: number };
  /** What tells backward where ReLU was open: a mask of a bit per element, or the output read again; null without one. */
  readonly gate: "mask" | "output" | null;
  /** Windows that each channel is cut into, where a tensor is larger than a binding may be. */
  readonly windows: number;
  /** Forward's reduction. */
  readonly moments: KernelPlan;
  /** Forward's second kernel. */
  readonly normalize: KernelPlan;
  /** Backward's reduction. */
  readonly gradientSums: KernelPlan;
  /** Backward's second kernel. */
  readonly gradients: KernelPlan;
}

/**
 * Explains how tensors of a shape would be worked on. TypeError or RangeError for what can be no tensor's, RangeError for an
 * empty one.
 */
export function explainPlan(
  limits: Limits,
  shape: readonly number[],
  { dtype = "float32", format = "channelsFirst", activation = false }: ExplainOptions = {},
): Plan {
  checkLayout({ shape, dtype, format }, "explain the plan");
  if (elements(shape) === 0) {
    throw new RangeError(
      `Cannot explain the plan as the shape must have elements: current shape is (${
        shape.join(", ")
      })`,
    );
  }
  const one = {
    slot: { contents: { kind: "elements", length: 0, dtype }, offset: 0 },
    format,
  } as const;
  const plan = (tensors: number, beside: WalkOver["beside"], reduced?: StatisticKind) => {
    const all = Object.fromEntries(Array.from({ length: tensors }, (_, i) => [i, one]));
    return planWalk({ shape, tensors: all, beside, reduced }, limits);
  };
  const made = (kind: StatisticKind, slices: number) => ({
    made: { contents: { kind, channels: shape[1], slices, count: NaN, statistics: [] } },
  });
  const moments = plan(1, {}, "moments");
  const merged = moments.slices(0) * moments.cells;
  const normalize = plan(2, made("moments", merged));
  const mask = layMask(normalize, dtype, limits);
  const gate = activation ? mask ? "mask" : "output" : null;
  const read = gate === "output" ? 3 : 2;
  const sums = plan(read, made("moments", merged), "gradient sums");
  const mergedSums = sums.slices(0) * sums.cells;
  const gradients = plan(read + 1, made("gradient sums", mergedSums));
  return Object.freeze<Plan>({
    shape: Object.freeze([...shape]),
    ...{ dtype, format, pack: moments.pack },
    passes: Object.freeze({ forward: 3, backward: 2 * read + 1 }),
    gate,
    windows: moments.cells,
    moments: kernelPlan(moments, moments.slices(0)),
    normalize: kernelPlan(normalize, normalize.slices(merged)),
    gradientSums: kernelPlan(sums, sums.slices(0)),
    gradients: kernelPlan(gradients, gradients.slices(mergedSums)),
  });
}

function kernelPlan({ boxes, tile, pack, cells }: WalkPlan, slices: number): KernelPlan {
  return Object.freeze<KernelPlan>({
    launches: boxes.length,
    workgroups: boxes.reduce((sum, box) => sum + tiling(box, tile, slices).workgroups, 0),
    invocations: tile.workgroup,
    channels: tile.lanes * (pack === "channels" ? 4 : 1),
    slices: slices * cells,
  });
}
