/** A few steps on this rank's part of the batch, by the package alone: what came of them, and on how many threads. */

import * as bn from "@syncbn/syncbn";
import { wasmDevice } from "@syncbn/syncbn/wasm";

/** The batch: two channels, rows for two ranks. */
export const PARTS = [[1, 5, 2, 7, 4, 4], [3, 6, 9, 4]];

/** @type {(group: bn.ProcessGroup, part: readonly number[]) => Promise<{ threads: number, numbers: number[] }>} */
export async function train(group, part) {
  const device = await wasmDevice({ threads: 2 });
  let state = bn.initBatchNorm(device, 2);
  for (let step = 0; step < 3; step++) {
    const x = bn.tensor(device, part, [part.length / 2, 2]);
    const effects = { device, group };
    const { state: next, output, saved } = await bn.syncBatchNormForward(state, x, effects);
    const y = await bn.toArray(device, output);
    const dy = bn.tensor(device, y.map((value) => value ** 3 - 1), x.shape);
    const own = await bn.syncBatchNormBackward(saved, dy, effects);
    const gradients = { gradWeight: own.gradWeight, gradBias: own.gradBias };
    const { gradWeight, gradBias } = await bn.allReduceGradients(gradients, effects, {
      average: false,
    });
    state = bn.withParameters(next, {
      weight: bn.addScaled(device, state.weight, gradWeight, -0.1),
      bias: bn.addScaled(device, state.bias, gradBias, -0.1),
    });
  }
  const { weight, bias, runningVar } = await bn.stateToHost(device, state);
  const { threads } = device.info;
  await device[Symbol.asyncDispose]();
  return { threads, numbers: [...weight, ...bias, ...runningVar] };
}
