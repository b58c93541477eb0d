/** What comes from other frameworks, and what is folded away, on a device. */

import assert from "node:assert/strict";
import {
  batchNormInfer,
  type BatchNormState,
  foldBatchNorm,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  byChannel,
  conventionOf,
  LAYERS,
  logical,
  settingsOf,
  vectorsOf,
} from "../checkpoint/frameworks.ts";
import { convolve, type Geometry, KINDS } from "../convolution.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";

/** A layer of each kind: two groups where there may be some. */
const GEOMETRIES: readonly Geometry[] = (Object.keys(KINDS) as (keyof typeof KINDS)[]).map(
  (kind) => ({
    kind,
    ...{ groups: KINDS[kind].axes === 0 ? 1 : 2, inputs: 2, outputs: 3, stride: 1, padding: 0 },
    kernel: [KINDS[kind].axes === 2 ? 2 : 1, KINDS[kind].axes === 0 ? 1 : 2],
    input: [KINDS[kind].axes === 2 ? 3 : 1, KINDS[kind].axes === 0 ? 1 : 4],
  }),
);

/** Registers the tests of conventions and folding for a device. */
export function conventionSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const ulp = EPSILON.float32;

  test("batch norms of Keras and Flax evaluate as there, and go back bit for bit", async (device) => {
    for (const layer of LAYERS) {
      const { read, write, names } = conventionOf(layer);
      const vectors = vectorsOf(layer.steps.at(-1)!.after);
      const { state: host, format } = read(vectors, { ...settingsOf(layer), count: null });
      const state = stateFromHost(device, host);
      const { x, y } = layer.evaluation;
      const input = tensor(device, x, logical(layer.shape, format), { format });
      const output = await toArray(device, batchNormInfer(state, input, { device }));
      const [inputs, outputs] = [byChannel(layer, x), byChannel(layer, [...output])];
      const { weight, bias, runningMean, runningVar, eps } = host;
      byChannel(layer, y).forEach((expected, c) => {
        const scale = Math.abs(weight?.[c] ?? 1) / Math.sqrt(runningVar![c] + eps);
        // The framework's own operations, as in frameworks_test.ts, and the device's.
        const absolute = inputs[c].map((value) =>
          ulp *
          ((5 + kit.ulps) * scale * (Math.abs(value) + Math.abs(runningMean![c])) +
            (2 + kit.ulps) * Math.abs(bias?.[c] ?? 0))
        );
        const what = `${layer.kind}, shape (${layer.shape}), channel ${c}`;
        assertClose(outputs[c], expected, { absolute, relative: 0 }, what);
      });
      const { vectors: back } = write(await stateToHost(device, state), { count: null, format });
      for (const name of names) assert.deepEqual(back[name], vectors[name] ?? null);
    }
  });

  test("a folded layer gives what layer and batch norm give in evaluation", async (device) => {
    for (const [seed, geometry] of GEOMETRIES.entries()) {
      const { kind, groups, inputs, outputs, kernel, input } = geometry;
      const { axes, transposed } = KINDS[kind];
      const C = groups * outputs;
      const shape = [
        ...(transposed ? [groups * inputs, outputs] : [C, inputs]),
        ...kernel.slice(2 - axes),
      ];
      const normals = (length: number, nth: number) => normalArray(length, 100 * seed + nth);
      const weight = normals(shape.reduce((a, b) => a * b), 1);
      const bias = normals(C, 2);
      const hostState: BatchNormState<Float32Array> = {
        ...{ numFeatures: C, eps: 1e-5, momentum: 0.1, numBatchesTracked: 1 },
        ...{ weight: normals(C, 3), bias: normals(C, 4), runningMean: normals(C, 5) },
        runningVar: normals(C, 6).map((value) => value ** 2 + 0.25),
      };
      const x = normals(groups * inputs * input[0] * input[1], 7);
      const before = convolve(geometry, { weight, bias }, x);
      const hidden = tensor(device, before.flat(), [1, C, before[0].length]);
      const state = stateFromHost(device, hostState);
      const unfolded = await toArray(device, batchNormInfer(state, hidden, { device }));

      const folded = foldBatchNorm(
        hostState,
        { weight, shape, bias, transposed },
        shape.length,
      );
      const together = convolve(geometry, folded, x).flat();
      // Half an ulp for each folded number; the hidden value, rounded to float32, is scaled; the device's own.
      const abs = (values: Float32Array) => values.map(Math.abs);
      const sizes = convolve(
        geometry,
        { weight: abs(folded.weight), bias: abs(folded.bias) },
        abs(x),
      ).flat();
      const positions = before[0].length;
      const absolute = sizes.map((size, at) => {
        const c = Math.floor(at / positions);
        const { runningMean, runningVar, weight: gamma, bias: beta, eps } = hostState;
        const scale = Math.abs(gamma![c]) / Math.sqrt(runningVar![c] + eps);
        const hiddenSize = Math.abs(before[c][at % positions]) + Math.abs(runningMean![c]);
        return ulp *
          (size / 2 + (0.5 + kit.ulps) * scale * hiddenSize + kit.ulps * Math.abs(beta![c]));
      });
      assertClose(unfolded, together, { absolute, relative: 0 }, `${kind} (${shape})`);
    }
  });
}
