/** Masks as Keras and Flax have them: their numbers, of a batch that is shared by two ranks here. */

import {
  initBatchNorm,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/weights.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";

/** Registers the tests for a device. */
export function weightsGoldenSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  for (const { framework, shape, momentum, epsilon: eps, ...values } of golden.cases) {
    test(`a mask gives ${framework}'s numbers: (${shape.join(", ")})`, async (device) => {
      const [N, ...extents] = shape;
      const [C] = extents.slice(-1);
      const spatial = extents.slice(0, -1);
      const inner = spatial.reduce((product, extent) => product * extent, 1);
      // Terms are of the order of 10; Keras itself is in float32.
      const relative = (kit.ulps + (framework === "keras" ? 8 : 0)) * EPSILON.float32;
      const units = { absolute: 8 * relative, relative };
      const vector = (numbers: readonly number[]) => device.upload(Float32Array.from(numbers));
      const state = {
        ...initBatchNorm(device, C, { eps, momentum: 1 - momentum, runningVariance: "biased" }),
        ...{ weight: vector(values.weight), bias: vector(values.bias) },
      };
      const ranks = await runRanks(2, async (group) => {
        const [from, to] = group.rank === 0 ? [0, 1] : [1, N];
        const put = (numbers: readonly number[], channels: number) =>
          tensor(
            device,
            numbers.slice(from * inner * channels, to * inner * channels),
            [to - from, channels, ...spatial],
            { format: "channelsLast" },
          );
        const effects = { device, group };
        const options = { weights: put(values.mask, 1) };
        const forward = await syncBatchNormForward(state, put(values.x, C), effects, options);
        const back = await syncBatchNormBackward(forward.saved, put(values.dy, C), effects);
        const { runningMean, runningVar } = await stateToHost(device, forward.state);
        assertClose(runningMean!, values.runningMean, units, "running mean");
        assertClose(runningVar!, values.runningVar, units, "running variance");
        return {
          y: await toArray(device, forward.output),
          dx: await toArray(device, back.gradInput),
          dweight: await device.download(back.gradWeight!),
          dbias: await device.download(back.gradBias!),
        };
      });
      const [one, two] = ranks;
      assertClose([...one.y, ...two.y], values.y, units, "y");
      assertClose([...one.dx, ...two.dx], values.dx, units, "dx");
      const sum = (name: "dweight" | "dbias") => one[name].map((v, c) => v + two[name][c]);
      assertClose(sum("dweight"), values.dweight, units, "dweight");
      assertClose(sum("dbias"), values.dbias, units, "dbias");
    });
  }
}
