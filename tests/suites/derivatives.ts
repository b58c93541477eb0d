/** Gradients against central differences of the oracle's float64 forward, alone and over ranks. */

import assert from "node:assert/strict";
import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  batchNormInferBackward,
  type Device,
  type Format,
  runRanks,
  stateFromHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, register, using } from "../kit.ts";
import * as oracle from "../oracle.ts";
import { normalArray } from "../random.ts";

interface Case {
  readonly name: string;
  readonly shape: readonly number[];
  readonly eps?: number;
  readonly x?: ArrayLike<number>;
  readonly weight?: ArrayLike<number>;
  readonly mean?: number;
}

const CASES: readonly Case[] = [
  { name: "(6, 3)", shape: [6, 3] },
  { name: "(3, 2, 5)", shape: [3, 2, 5] },
  { name: "(2, 3, 2, 3)", shape: [2, 3, 2, 3] },
  { name: "(5, 1, 1, 2, 3)", shape: [5, 1, 1, 2, 3] },
  { name: "mean 1000", shape: [4, 2, 6], mean: 1e3 },
  {
    name: "PyTorch test 18: arange (4, 5, 6), weight 1..5, eps 1e-4",
    shape: [4, 5, 6],
    eps: 1e-4,
    x: Float32Array.from({ length: 120 }, (_, i) => i),
    weight: [1, 2, 3, 4, 5],
  },
];

/** Registers the derivative tests for a device. */
export function derivativeSuite<A>(kit: DeviceKit<A>): void {
  for (const options of CASES) {
    for (const mode of ["training", "training on 3 ranks", "evaluation"] as const) {
      for (const relu of [false, true]) {
        const what = `${mode}${relu ? " with residual and ReLU" : ""}, ${options.name}`;
        register(
          kit,
          `gradients equal central differences: ${what}`,
          () => using(kit, (device) => check(device, kit.ulps, options, mode, relu)),
        );
      }
    }
  }
}

async function check<A>(
  device: Device<A>,
  ulps: number,
  { shape, eps = 1e-5, mean = 0, ...given }: Case,
  mode: "training" | "training on 3 ranks" | "evaluation",
  relu: boolean,
): Promise<void> {
  const [samples, channels, ...spatial] = shape;
  const inner = spatial.reduce((product, extent) => product * extent, 1);
  const length = samples * channels * inner;
  const x = given.x ?? normalArray(length, 1, mean);
  const weight = Float32Array.from(given.weight ?? normalArray(channels, 2, 1, 0.3));
  const bias = normalArray(channels, 3);
  const added = normalArray(length, 4);
  const dy = normalArray(length, 5);
  const running = {
    mean: [...normalArray(channels, 6, mean)],
    variance: Array.from(normalArray(channels, 7), (value) => 0.5 + value * value),
  };
  const batch = (values: ArrayLike<number>) => ({ values, channels, inner });
  const parameters = { weight, bias, eps };
  const output = (values: ArrayLike<number>, p = parameters, r = added) =>
    mode === "evaluation"
      ? oracle.forward(
        batch(values),
        {
          count: 0,
          mean: [...Float32Array.from(running.mean)],
          variance: [...Float32Array.from(running.variance)],
        },
        p,
        relu ? r : null,
        relu,
      )
      : oracle.trainForward(batch(values), p, relu ? r : null, relu);
  // A step across the kink of the ReLU is no derivative: no gradient flows where the output is next to 0.
  if (relu) output(x).forEach((y, i) => Math.abs(y) < 1e-2 && (dy[i] = 0));
  const loss = (y: readonly number[]) => y.reduce((total, value, i) => total + value * dy[i], 0);
  const step = 1e-4;
  const expected = {
    dx: oracle.centralDifferences((values) => loss(output(values)), x, step),
    dweight: oracle.centralDifferences(
      (values) =>
        loss(output(x, { ...parameters, weight: values as unknown as Float32Array<ArrayBuffer> })),
      weight,
      step,
    ),
    dbias: oracle.centralDifferences(
      (values) =>
        loss(output(x, { ...parameters, bias: values as unknown as Float32Array<ArrayBuffer> })),
      bias,
      step,
    ),
  };

  const state = stateFromHost(device, {
    numFeatures: channels,
    eps,
    momentum: 0.1,
    weight,
    bias,
    runningMean: Float32Array.from(running.mean),
    runningVar: Float32Array.from(running.variance),
    numBatchesTracked: 1,
  });
  const formats: readonly Format[] = ["channelsFirst", "channelsLast"];
  const slice = (values: ArrayLike<number>, format: Format, from: number, to: number) => {
    const part = Float32Array.from(values).slice(from * channels * inner, to * channels * inner);
    const ordered = format === "channelsLast"
      ? oracle.permute(part, { channels, inner }, format)
      : part;
    return tensor(device, ordered, [to - from, channels, ...spatial], { format });
  };
  const epilogue = (from: number, to: number) =>
    relu ? { activation: "relu" as const, residual: slice(added, "channelsLast", from, to) } : {};
  const read = async (backward: Backward<A>) => {
    const { gradInput, gradWeight, gradBias } = backward;
    assert(gradWeight !== null && gradBias !== null);
    const values = await toArray(device, gradInput);
    return {
      dx: [
        ...gradInput.format === "channelsLast"
          ? oracle.permute(values, { channels, inner }, "channelsFirst")
          : values,
      ],
      dweight: [...await device.download(gradWeight)],
      dbias: [...await device.download(gradBias)],
    };
  };

  for (const format of formats) {
    const rank = async (
      from: number,
      to: number,
      group?: Parameters<Parameters<typeof runRanks>[1]>[0],
    ) => {
      const input = slice(x, format, from, to);
      const gradient = slice(dy, "channelsFirst", from, to);
      const options = epilogue(from, to);
      if (mode === "evaluation") {
        return read(batchNormInferBackward(state, input, gradient, { device }, options));
      }
      if (!group) {
        const { saved } = batchNormForward(state, input, { device }, options);
        return read(batchNormBackward(saved, gradient, { device }));
      }
      const { saved } = await syncBatchNormForward(state, input, { device, group }, options);
      return read(await syncBatchNormBackward(saved, gradient, { device, group }));
    };
    const cuts = [0, 1, 1, samples];
    const parts = mode === "training on 3 ranks"
      ? await runRanks(3, (group) => rank(cuts[group.rank], cuts[group.rank + 1], group))
      : [await rank(0, samples)];
    const total = (pick: "dweight" | "dbias") =>
      parts.map((part) => part[pick]).reduce((a, b) => a.map((value, c) => value + b[c]));
    // Central differences of float64 are good to about step^2 plus 1e-16 * |loss| / step.
    const largest = Math.max(...expected.dx.map(Math.abs), ...expected.dweight.map(Math.abs), 1);
    const absolute = 2e-6 * largest + ulps * EPSILON.float32 * largest;
    const tolerance = { absolute, relative: 0 };
    assertClose(parts.flatMap(({ dx }) => dx), expected.dx, tolerance, `${format}: gradInput`);
    assertClose(total("dweight"), expected.dweight, tolerance, `${format}: gradWeight`);
    assertClose(total("dbias"), expected.dbias, tolerance, `${format}: gradBias`);
  }
}
