/**
 * A batch norm of tfjs's as the library's own: its views, its state, its two collectives.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import { type Backward, backwards } from "../../norm/backward.ts";
import { forwards, type GroupForward } from "../../norm/forward.ts";
import type { GroupSaved } from "../../norm/normalize.ts";
import { overGroup } from "../../norm/steps.ts";
import type { Tensor } from "../../tensor.ts";
import type { Meeting } from "./meetings.ts";
import type { Norm } from "./model.ts";

const ACTION = "train the model";

/** Channels of a batch norm. */
export function channelsOf({ movingMean }: Norm): number {
  return movingMean.read().shape[0];
}

/** What a batch norm takes on its way forward. */
export interface Entry<A> {
  readonly layer: Norm;
  readonly input: Tensor<A>;
  readonly weight: A | null;
  readonly bias: A | null;
}

/** Normalizes a batch with the statistics of all ranks. */
export function forward<A>(
  device: Device<A>,
  { layer, input, weight, bias }: Entry<A>,
): Meeting<GroupForward<A>> {
  const state = {
    ...{ numFeatures: channelsOf(layer), eps: layer.epsilon, momentum: null, weight, bias },
    ...{ runningMean: null, runningVar: null, numBatchesTracked: 0 },
  };
  const call = { stateOf: () => state, input, options: {}, action: ACTION };
  return async (group, { label, signal }) =>
    (await overGroup({ device, group }, { signal }, forwards([call], label)))[0];
}

/** Computes the gradients of what {@linkcode forward} made. */
export function backward<A>(
  device: Device<A>,
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
): Meeting<Backward<A>> {
  const call = { saved, gradOutput, options: {}, action: ACTION };
  return async (group, { label, signal }) =>
    (await overGroup({ device, group }, { signal }, backwards([call], label)))[0];
}
