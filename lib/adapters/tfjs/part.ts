/**
 * A rank's part of a training step: what it needs and what comes of it. `own_part.ts` is that of a rank with rows, `empty_part.ts`
 * that of one without.
 *
 * Which collectives there are follows from the model alone: one of every batch norm, one of each that is reached on the
 * way back, one of all gradients.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import type { Moments } from "../../norm/statistics.ts";
import type { Bridge } from "./bridge.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import type { LayersModel, Norm, Variable } from "./model.ts";
import { channelsOf } from "./norm_meetings.ts";
import type { Program } from "./program.ts";

/** What all steps of a trainer share. */
export interface Training<A> {
  readonly tf: TensorFlow;
  readonly model: LayersModel;
  readonly program: Program;
  readonly parameters: readonly Variable[];
  readonly device: Device<A>;
  readonly bridge: Bridge<A>;
}

/** The rows of one rank, and their share in all ranks'. */
export interface Rows {
  readonly xs: readonly TfTensor[];
  readonly ys: readonly TfTensor[];
  readonly share: number;
}

/** What a step has found, the same on all ranks. */
export interface Found<A> {
  /** Loss, metrics and gradients of the whole batch, one after the other. */
  readonly totals: Float64Array;
  /** What each batch norm has seen, in order; the arrays are the finder's. */
  readonly seen: readonly Seen<A>[];
}

/** The moments that a batch norm has seen. */
export interface Seen<A> {
  readonly layer: Norm;
  readonly moments: Moments<A>;
}

/** The names of a step's collectives, after which its part meets. */
export function labelsOf({ norms }: Program): readonly string[] {
  const back = norms.filter(({ reached }) => reached).toReversed();
  return [
    ...norms.map(({ layer, place }) => `${place} forward C=${channelsOf(layer)}`),
    ...back.map(({ layer, place }) => `${place} backward C=${channelsOf(layer)}`),
    "gradients",
  ];
}
