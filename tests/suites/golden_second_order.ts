/** Second order by others' automatic differentiation: PyTorch's on one rank, JAX's over several. */

import {
  batchNormBackwardBackward,
  batchNormForward,
  batchNormInferBackwardBackward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  type ReduceGroup,
  runRanks,
  stateFromHost,
  syncBatchNormBackwardBackward,
  syncBatchNormForward,
  syncBatchNormJvp,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/second_order.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { compiles } from "./second_order.ts";

type Numbers = readonly number[];

/** One configuration of the file: tensors in logical order, channels first. */
interface Configuration {
  readonly name: string;
  readonly shape: readonly number[];
  readonly ranks: number;
  readonly training: boolean;
  readonly relu: boolean;
  readonly eps: number;
  readonly x: Numbers;
  readonly dy: Numbers;
  readonly weight: Numbers;
  readonly bias: Numbers;
  readonly residual?: Numbers;
  readonly runningMean: Numbers;
  readonly runningVar: Numbers;
  readonly input: Numbers;
  readonly ofWeight: Numbers;
  readonly ofBias: Numbers;
  readonly ofResidual?: Numbers;
  readonly factors?: Numbers;
  readonly exact: Readonly<Record<Result, Numbers>>;
}

type Result = "jvp" | "gradInput" | "gradGradOutput" | "gradWeight";

/** Registers one test for all configurations of the golden file. */
export function secondOrderGoldenSuite<A>(kit: DeviceKit<A>): void {
  const all = golden.configurations as unknown as readonly Configuration[];
  // Those whose kernels another test compiles.
  const configurations = compiles(kit) ? all.filter(({ name }) => name.includes("arange")) : all;
  testsOf(kit)("second order gives PyTorch's numbers, and JAX's over ranks", async (device) => {
    for (const configuration of configurations) await check(device, kit.ulps, configuration);
  });
}

async function check<A>(
  device: Device<A>,
  ulps: number,
  configuration: Configuration,
): Promise<void> {
  const { name, ranks, exact } = configuration;
  const parts = ranks === 1
    ? [await rank(device, configuration, 0)]
    : await runRanks(ranks, (group) => rank(device, configuration, group.rank, group));
  for (const result of ["jvp", "gradInput", "gradGradOutput", "gradWeight"] as const) {
    const all = parts.map((part) => [...part[result]]);
    const actual = result === "gradWeight"
      ? all.reduce((a, b) => a.map((value, c) => value + b[c]))
      : all.flat();
    // Every result is a sum of some terms of about the largest one's size, each as exact as the device.
    const largest = Math.max(...exact[result].map(Math.abs));
    const absolute = 4 * ulps * EPSILON.float32 * largest;
    assertClose(actual, exact[result], { absolute, relative: 0 }, `${name}: ${result}`);
  }
}

async function rank<A>(
  device: Device<A>,
  { shape: [samples, ...extents], ...given }: Configuration,
  index: number,
  group?: ReduceGroup,
) {
  const own = samples / given.ranks;
  const size = given.x.length / given.ranks;
  const put = (values: Numbers) =>
    tensor(device, values.slice(index * size, (index + 1) * size), [own, ...extents]);
  const vector = (values: Numbers, factor = 1) =>
    device.upload(Float32Array.from(values, (value) => value * factor));
  const state = stateFromHost(device, {
    ...{ numFeatures: extents[0], eps: given.eps, momentum: 0.1, numBatchesTracked: 1 },
    weight: Float32Array.from(given.weight),
    bias: Float32Array.from(given.bias),
    runningMean: Float32Array.from(given.runningMean),
    runningVar: Float32Array.from(given.runningVar),
  });
  const [x, dy, input] = [given.x, given.dy, given.input].map(put);
  const options = {
    ...(given.relu && { activation: "relu" as const }),
    ...(given.residual && { residual: put(given.residual) }),
  };
  const ofResidual = given.ofResidual && put(given.ofResidual);
  const tangents = {
    ...{ input, weight: vector(given.ofWeight), bias: vector(given.ofBias) },
    ...(ofResidual && { residual: ofResidual }),
  };
  const factor = given.factors?.[index];
  const cotangents = {
    ...{ gradInput: input, ...(ofResidual && { gradResidual: ofResidual }) },
    gradWeight: vector(given.ofWeight, factor),
    gradBias: vector(given.ofBias, factor),
  };
  const results = async () => {
    if (!given.training) {
      const jvp = batchNormInferJvp(state, x, tangents, { device }, options);
      const call = [state, x, dy, cotangents, { device }, options] as const;
      return { jvp, ...batchNormInferBackwardBackward(...call) };
    }
    if (!group) {
      const { saved } = batchNormForward(state, x, { device }, options);
      const jvp = batchNormJvp(saved, tangents, { device });
      return { jvp, ...batchNormBackwardBackward(saved, dy, cotangents, { device }) };
    }
    const effects = { device, group };
    const { saved } = await syncBatchNormForward(state, x, effects, options);
    const jvp = await syncBatchNormJvp(saved, tangents, effects);
    return { jvp, ...await syncBatchNormBackwardBackward(saved, dy, cotangents, effects) };
  };
  const { jvp, gradInput, gradGradOutput, gradWeight } = await results();
  return {
    jvp: await toArray(device, jvp),
    gradInput: await toArray(device, gradInput),
    gradGradOutput: await toArray(device, gradGradOutput),
    gradWeight: await device.download(gradWeight!),
  };
}
