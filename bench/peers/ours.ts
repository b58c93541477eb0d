/** Ours, through the functions that users call: forward, backward, and every result freed, as a training loop does. */

import {
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
    // By name: to walk trees for what they hold, as release() does, takes longer than the smallest call.
    const freeForward = ({ output, state, saved }: LocalForward<A>) =>
      device.free(output.data, saved.moments.data, state.runningMean!, state.runningVar!);
    const freeBoth = ({ forward, back }: ReturnType<typeof compute>) => {
      freeForward(forward);
      device.free(back.gradInput.data, back.gradWeight!, back.gradBias!);
    };
    const compute = () => {
      const forward = batchNormForward(state, x, { device });
      return { forward, back: batchNormBackward(forward.saved, dy, { device }) };
    };
    return {
      forward: () => freeForward(batchNormForward(state, x, { device })),
      both: () => freeBoth(compute()),
      results: async () => {
        const computed = compute();
        const { forward, back } = computed;
        const results = {
          y: await toArray(device, forward.output),
          dx: await toArray(device, back.gradInput),
          gradWeight: await device.download(back.gradWeight!),
          gradBias: await device.download(back.gradBias!),
        };
        freeBoth(computed);
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
