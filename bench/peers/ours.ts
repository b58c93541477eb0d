/** Ours, through the functions that users call: forward, backward, and every result freed, as a training loop does. */

import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  type Device,
  type LocalForward,
  release,
  toArray,
} from "../../mod.ts";
import { place } from "../batches.ts";
import { inProcess, type Library, type Subject } from "./subject.ts";

/** Makes a subject of one of our devices. It is opened anew for each batch, which gives its memory back between them. */
export function ourSubject<A>(
  name: string,
  threads: number,
  openDevice: () => Promise<Device<A> & Partial<AsyncDisposable>>,
): Subject {
  const open: Library["open"] = async (shape, numbers) => {
    const device = await openDevice();
    // The statistics of a state that is new, though another shift would suit the data better.
    const placed = place(device, shape, numbers);
    const { state, x, dy } = placed;
    // By hand: to walk trees for what they hold, as release() does, takes longer than the smallest call.
    const free = ({ output, state, saved }: LocalForward<A>, back?: Backward<A>) => {
      const made = [output.data, saved.moments.data, state.runningMean, state.runningVar];
      const gradients = [back?.gradInput.data, back?.gradWeight, back?.gradBias];
      device.free(...[...made, ...gradients].filter((array) => array != null));
    };
    const compute = () => {
      const forward = batchNormForward(state, x, { device });
      return { forward, back: batchNormBackward(forward.saved, dy, { device }) };
    };
    return {
      forward: () => free(batchNormForward(state, x, { device })),
      both: () => {
        const { forward, back } = compute();
        free(forward, back);
      },
      results: async () => {
        const { forward, back } = compute();
        const results = {
          y: await toArray(device, forward.output),
          dx: await toArray(device, back.gradInput),
          gradWeight: await device.download(back.gradWeight!),
          gradBias: await device.download(back.gradBias!),
        };
        free(forward, back);
        return results;
      },
      dispose: async () => {
        release(device, placed);
        await device[Symbol.asyncDispose]?.();
      },
    };
  };
  return inProcess({ name, threads, version: name, open });
}
