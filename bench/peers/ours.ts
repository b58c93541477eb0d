/**
 * Ours, through the functions that users call: forward, backward, and every result freed, as a training loop does.
 *
 * @module
 */

import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  type LocalForward,
  stateFromHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { EPS, extentsOf, MOMENTUM, type Subject, timeCalls, type Work } from "./subject.ts";

/** Arrays that a new state does not share with the old one. */
function freed<A>(old: BatchNormState<A>, { output, state, saved }: LocalForward<A>): A[] {
  const arrays = [output.data, saved.moments.data];
  if (state.runningMean !== null && state.runningMean !== old.runningMean) {
    arrays.push(state.runningMean);
  }
  if (state.runningVar !== null && state.runningVar !== old.runningVar) {
    arrays.push(state.runningVar);
  }
  return arrays;
}

function freedGradients<A>({ gradInput, gradWeight, gradBias }: Backward<A>): A[] {
  return [gradInput.data, ...[gradWeight, gradBias].filter((array) => array !== null)];
}

/**
 * Makes a subject of one of our devices. It is opened anew for each batch, which gives its memory back between them.
 *
 * @param name what its rows are called
 * @param threads its number of threads
 * @param openDevice opens the device
 * @returns the subject
 */
export function ourSubject<A>(
  name: string,
  threads: number,
  openDevice: () => Promise<Device<A> & Partial<AsyncDisposable>>,
): Subject {
  return {
    name,
    threads,
    version: name,
    open: async (shape, { x: values, dy: gradient, weight, bias }) => {
      const device = await openDevice();
      const { channels } = extentsOf(shape);
      // The statistics of a state that is new, though another shift would suit the data better.
      const state = stateFromHost(device, {
        numFeatures: channels,
        eps: EPS,
        momentum: MOMENTUM,
        weight,
        bias,
        runningMean: new Float32Array(channels),
        runningVar: new Float32Array(channels).fill(1),
        numBatchesTracked: 0,
      });
      const { format } = shape;
      const x = tensor(device, values, shape.shape, { format });
      const dy = tensor(device, gradient, shape.shape, { format });
      const forward = () => {
        device.free(...freed(state, batchNormForward(state, x, { device })));
      };
      const both = () => {
        const made = batchNormForward(state, x, { device });
        const gradients = batchNormBackward(made.saved, dy, { device });
        device.free(...freed(state, made), ...freedGradients(gradients));
      };
      const calls = { forward, both };
      return {
        contenders: [{
          name,
          threads,
          works: ["forward", "both"],
          time: (work: Work, count: number) => timeCalls(calls[work as keyof typeof calls], count),
          results: async () => {
            const made = batchNormForward(state, x, { device });
            const gradients = batchNormBackward(made.saved, dy, { device });
            const { gradInput, gradWeight, gradBias } = gradients;
            const results = {
              y: await toArray(device, made.output),
              dx: await toArray(device, gradInput),
              gradWeight: await device.download(gradWeight!),
              gradBias: await device.download(gradBias!),
            };
            device.free(...freed(state, made), ...freedGradients(gradients));
            return results;
          },
        }],
        [Symbol.asyncDispose]: async () => {
          device.free(x.data, dy.data);
          await device[Symbol.asyncDispose]?.();
        },
      };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
