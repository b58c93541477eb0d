/** What one rank does in a scenario: train on its slice of the batch and bring everything back to the host. */

import assert from "node:assert/strict";
import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  type Format,
  type ProcessGroup,
  region,
  stateFromHost,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../mod.ts";
import { permute } from "./oracle.ts";
import { firstState, innerOf, makeSteps, type Scenario, type StepData } from "./scenario.ts";

/** A rank's numbers after one step, on the host; tensors in channels-first order. */
export interface StepResult {
  readonly state: BatchNormState<Float32Array>;
  readonly y: readonly number[];
  readonly dx: readonly number[];
  readonly dresidual: readonly number[] | null;
  readonly dweight: readonly number[] | null;
  readonly dbias: readonly number[] | null;
}

/**
 * Trains all steps of a scenario on the samples `from` up to `to`: with a group synchronised, without one locally.
 * Checks on the way that nothing that was passed in has changed.
 *
 * @param data the scenario's numbers, which ranks of one thread need not make one by one
 */
export async function trainRank<A>(
  device: Device<A>,
  scenario: Scenario,
  slice: readonly [number, number],
  group?: ProcessGroup,
  data: readonly StepData[] = makeSteps(scenario),
): Promise<StepResult[]> {
  return await region(device, async (scope) => {
    let state = stateFromHost(scope, firstState(scenario));
    const results: StepResult[] = [];
    for (const numbers of data) {
      const [next, result] = await trainStep(scope, state, scenario, numbers, slice, group);
      results.push(result);
      state = next;
    }
    return results;
  });
}

async function trainStep<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  scenario: Scenario,
  data: StepData,
  [from, to]: readonly [number, number],
  group?: ProcessGroup,
): Promise<[BatchNormState<A>, StepResult]> {
  const { channels, spatial, dtype, format, gradFormat, relu, update } = scenario;
  const inner = innerOf(scenario);
  const cut = (values: Float32Array, order: Format): Float32Array<ArrayBuffer> => {
    const part = values.slice(from * channels * inner, to * channels * inner);
    return order === "channelsLast" ? permute(part, { channels, inner }, order) : part;
  };
  const make = (values: Float32Array, order: Format) =>
    tensor(device, cut(values, order), [to - from, channels, ...spatial], { dtype, format: order });
  const read = async (t: Tensor<A>): Promise<number[]> => {
    const values = await toArray(device, t);
    if (t.format === "channelsFirst") return [...values];
    return [...permute(values, { channels, inner }, "channelsFirst")];
  };
  const readVector = async (vector: A | null) =>
    vector === null ? null : [...await device.download(vector)];

  const x = make(data.x, format);
  const dy = make(data.dy, gradFormat);
  const residual = scenario.residual ? make(data.residual, scenario.residual) : undefined;
  const options = {
    ...(relu && { activation: "relu" as const }),
    ...(residual && { residual }),
    updateRunningStats: update,
  };
  const before = await stateToHost(device, state);
  let forward: { readonly output: Tensor<A>; readonly state: BatchNormState<A> };
  let backward: Backward<A>;
  if (group) {
    const result = await syncBatchNormForward(state, x, { device, group }, options);
    backward = await syncBatchNormBackward(result.saved, dy, { device, group });
    forward = result;
  } else {
    const result = batchNormForward(state, x, { device }, options);
    backward = batchNormBackward(result.saved, dy, { device });
    forward = result;
  }
  assert.deepEqual(await toArray(device, x), cut(data.x, format), "the input keeps its bytes");
  assert.deepEqual(await toArray(device, dy), cut(data.dy, gradFormat), "dy keeps its bytes");
  assert.deepEqual(await stateToHost(device, state), before, "the state keeps its bytes");
  assert.equal(backward.gradInput.format, format);
  assert.equal(backward.gradResidual?.format, scenario.residual ?? undefined);
  const result: StepResult = {
    state: await stateToHost(device, forward.state),
    y: await read(forward.output),
    dx: await read(backward.gradInput),
    dresidual: backward.gradResidual ? await read(backward.gradResidual) : null,
    dweight: await readVector(backward.gradWeight),
    dbias: await readVector(backward.gradBias),
  };
  return [forward.state, result];
}
