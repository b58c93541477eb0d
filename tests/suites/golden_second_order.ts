/** Second order by others' automatic differentiation, with and without weights: PyTorch's on one rank, JAX's over several. */

import {
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormInferBackwardBackward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  type Format,
  type ReduceGroup,
  runRanks,
  stateFromHost,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardMoments,
  syncBatchNormForward,
  syncBatchNormJvp,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/second_order.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { permute } from "../oracle.ts";
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
  readonly ofMean?: Numbers;
  readonly ofVariance?: Numbers;
  readonly factors?: Numbers;
  /** Of examples, or of places. */
  readonly weights?: Numbers;
  readonly lengths?: Numbers;
  readonly exact: Readonly<Partial<Record<Result, Numbers>>>;
}

const RESULTS = ["jvp", "gradInput", "gradGradOutput", "gradWeight", "ofMoments"] as const;
type Result = typeof RESULTS[number];

/** Registers one test for all configurations of the golden file. */
export function secondOrderGoldenSuite<A>(kit: DeviceKit<A>): void {
  const all = golden.configurations as unknown as readonly Configuration[];
  // Those whose kernels another test compiles.
  const configurations = compiles(kit) ? all.filter(({ name }) => name.includes("arange")) : all;
  testsOf(kit)("second order gives PyTorch's numbers, and JAX's over ranks", async (device) => {
    for (const configuration of configurations) {
      const isWeighted = configuration.weights ?? configuration.lengths;
      const formats: readonly Format[] = !isWeighted
        ? ["channelsFirst"]
        : kit.ways
        ? ["channelsLast"]
        : ["channelsFirst", "channelsLast"];
      for (const format of formats) await check(device, kit.ulps, configuration, format);
    }
  });
}

async function check<A>(
  device: Device<A>,
  ulps: number,
  configuration: Configuration,
  format: Format,
): Promise<void> {
  const { name, ranks, exact } = configuration;
  const parts = ranks === 1
    ? [await rank(device, configuration, format, 0)]
    : await runRanks(ranks, (group) => rank(device, configuration, format, group.rank, group));
  for (const result of RESULTS) {
    const wanted = exact[result];
    if (!wanted) continue;
    const all = parts.map((part) => [...part[result]!]);
    const actual = result === "gradWeight"
      ? all.reduce((a, b) => a.map((value, c) => value + b[c]))
      : all.flat();
    // Every result is a sum of some terms of about the largest one's size, each as exact as the device.
    const largest = Math.max(...wanted.map(Math.abs));
    const absolute = 4 * ulps * EPSILON.float32 * largest;
    assertClose(actual, wanted, { absolute, relative: 0 }, `${name} ${format}: ${result}`);
  }
}

async function rank<A>(
  device: Device<A>,
  { shape: [samples, channels, ...spatial], ...given }: Configuration,
  format: Format,
  index: number,
  group?: ReduceGroup,
) {
  const own = samples / given.ranks;
  const inner = spatial.reduce((product, extent) => product * extent, 1);
  const mine = (values: Numbers) => {
    const size = values.length / given.ranks;
    return values.slice(index * size, (index + 1) * size);
  };
  const put = (values: Numbers) => {
    const ordered = format === "channelsFirst"
      ? mine(values)
      : permute(mine(values), { channels, inner }, format);
    return tensor(device, ordered, [own, channels, ...spatial], { format });
  };
  const read = async (of: Tensor<A>) => {
    const values = await toArray(device, of);
    return of.format === "channelsFirst"
      ? values
      : permute(values, { channels, inner }, "channelsFirst");
  };
  const weighing = () => {
    const { weights, lengths } = given;
    if (lengths) return { lengths: Int32Array.from(mine(lengths)) };
    if (!weights) return {};
    if (weights.length === samples) {
      return { weights: device.upload(Float32Array.from(mine(weights))) };
    }
    return { weights: tensor(device, mine(weights), [own, 1, ...spatial], { format }) };
  };
  const vector = (values: Numbers, factor = 1) =>
    device.upload(Float32Array.from(values, (value) => value * factor));
  const state = stateFromHost(device, {
    ...{ numFeatures: channels, eps: given.eps, momentum: 0.1, numBatchesTracked: 1 },
    weight: Float32Array.from(given.weight),
    bias: Float32Array.from(given.bias),
    runningMean: Float32Array.from(given.runningMean),
    runningVar: Float32Array.from(given.runningVar),
  });
  const [x, dy, input] = [given.x, given.dy, given.input].map(put);
  const options = {
    ...(given.relu && { activation: "relu" as const }),
    ...(given.residual && { residual: put(given.residual) }),
    ...weighing(),
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
  const moments = given.ofMean && {
    ...{ dmean: vector(given.ofMean, factor), dvariance: vector(given.ofVariance!, factor) },
  };
  const results = async () => {
    if (!given.training) {
      const jvp = batchNormInferJvp(state, x, tangents, { device }, options);
      const call = [state, x, dy, cotangents, { device }, options] as const;
      return { jvp, owed: undefined, ...batchNormInferBackwardBackward(...call) };
    }
    if (!group) {
      const { saved } = batchNormForward(state, x, { device }, options);
      const jvp = batchNormJvp(saved, tangents, { device });
      const owed = batchNormBackwardMoments(saved, dy, moments!, { device }).gradInput;
      return { jvp, owed, ...batchNormBackwardBackward(saved, dy, cotangents, { device }) };
    }
    const effects = { device, group };
    const { saved } = await syncBatchNormForward(state, x, effects, options);
    const jvp = await syncBatchNormJvp(saved, tangents, effects);
    const owed = (await syncBatchNormBackwardMoments(saved, dy, moments!, effects)).gradInput;
    return { jvp, owed, ...await syncBatchNormBackwardBackward(saved, dy, cotangents, effects) };
  };
  const { jvp, owed, gradInput, gradGradOutput, gradWeight } = await results();
  return {
    jvp: await read(jvp),
    ofMoments: owed && await read(owed),
    gradInput: await read(gradInput),
    gradGradOutput: await read(gradGradOutput),
    gradWeight: await device.download(gradWeight!),
  };
}
