/**
 * PyTorch's numbers: every configuration of tests/golden/batch_norm.json on a device, alone and over three ranks.
 *
 * The tolerance of y next to 0 is the law's: one unit of the standard deviation at least, since there the mean is what
 * resolves, not the value. It was a device with float32 arithmetic that brought this up.
 */

import assert from "node:assert/strict";
import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  type Device,
  DeviceError,
  type DType,
  type Format,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/batch_norm.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, register, using } from "../kit.ts";
import { permute, statistics } from "../oracle.ts";

/** Results of one pass, as the file names them; tensors in logical channels-first order. */
interface Results {
  readonly y: readonly number[];
  readonly dx: readonly number[];
  readonly dweight?: readonly number[];
  readonly dbias?: readonly number[];
  readonly dresidual?: readonly number[];
  readonly runningMean?: readonly number[];
  readonly runningVar?: readonly number[];
  readonly numBatchesTracked?: number;
}

/** One forward and backward: what goes in and what PyTorch gets. */
interface Pass {
  readonly x: readonly number[];
  readonly dy: readonly number[];
  readonly residual?: readonly number[];
  readonly exact: Results;
  readonly torch: Results;
}

/** One configuration of the file. */
interface Configuration {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: Format;
  readonly gradOutputFormat: Format | null;
  readonly dtype: DType;
  readonly eps: number;
  readonly momentum: number | null;
  readonly weight: readonly number[] | null;
  readonly bias: readonly number[] | null;
  readonly tracked: boolean;
  readonly activation: "relu" | null;
  readonly residualFormat: Format | null;
  readonly torchWithinTolerance: boolean;
  readonly steps: readonly Pass[];
  readonly evaluation: Pass | null;
}

/** A result's name, except for the counter's, which is compared exactly. */
type Key = Exclude<keyof Results, "numBatchesTracked">;

/** What the library got; a key is missing where PyTorch has none either. */
type Actual = Partial<Record<Key, ArrayLike<number>>>;

/** Sizes of the terms that cancel in each result, for every value of it. */
type Scales = Record<Key, ArrayLike<number>>;

/** torch.testing.assert_close. */
const PYTORCH = {
  float32: { relative: 1.3e-6, absolute: 1e-5 },
  float16: { relative: 1e-3, absolute: 1e-5 },
} as const;

const TENSORS: readonly string[] = ["y", "dx", "dresidual"];

/** The type that the compiler infers is a union of as many shapes as records: this is what they are. */
const configurations = golden.configurations as unknown as readonly Configuration[];

/**
 * Registers one test per configuration of the golden file.
 *
 * @param kit the device under test
 */
export function goldenSuite<A>(kit: DeviceKit<A>): void {
  for (const configuration of configurations) {
    const what = "batchNormForward() and batchNormBackward() give PyTorch's numbers";
    register(kit, `${what}: ${configuration.name}`, async () => {
      await using(kit, async (device) => {
        if (configuration.dtype === "float16" && !device.info.float16) {
          return assertUnsupported(device, configuration);
        }
        await assertTraining(kit, device, configuration);
        await assertGroupTraining(kit, device, configuration);
        await assertEvaluation(kit, device, configuration);
      });
    });
  }
}

/** Where the device has no float16 it must say so, rather than compute in something else. */
function assertUnsupported<A>(device: Device<A>, { shape, steps: [{ x }] }: Configuration): void {
  assert.throws(
    () => tensor(device, x, shape, { dtype: "float16" }),
    (error) => error instanceof DeviceError && error.code === "unsupported",
  );
}

/** All training steps in a row on one rank; the state goes from one to the next. */
async function assertTraining<A>(
  kit: DeviceKit<A>,
  device: Device<A>,
  configuration: Configuration,
): Promise<void> {
  let state = initialState(device, configuration);
  for (const [index, pass] of configuration.steps.entries()) {
    const what = `step ${index}`;
    const { input, gradOutput, options } = upload(device, configuration, pass);
    const forward = batchNormForward(state, input, { device }, options);
    const backward = batchNormBackward(forward.saved, gradOutput, { device });
    const actual = {
      ...await download(device, configuration, forward.output, backward),
      ...await downloadState(device, forward.state),
    };
    const before = await stateToHost(device, state);
    assertResults(kit, configuration, pass, before, actual, what, index + 1);
    assert.equal(forward.state.numBatchesTracked, pass.exact.numBatchesTracked ?? 0, what);
    state = forward.state;
  }
}

/** The same steps with the batch cut over three ranks: the library's law says that nothing changes. */
async function assertGroupTraining<A>(
  kit: DeviceKit<A>,
  device: Device<A>,
  configuration: Configuration,
): Promise<void> {
  const cuts = cut(configuration.shape[0]);
  const ranks = await runRanks(cuts.length, async (group) => {
    let state = initialState(device, configuration);
    const states = [state];
    const parts: { readonly results: Actual; readonly running: Actual }[] = [];
    for (const whole of configuration.steps) {
      const [part, pass] = slice(configuration, whole, cuts[group.rank]);
      const { input, gradOutput, options } = upload(device, part, pass);
      const forward = await syncBatchNormForward(state, input, { device, group }, options);
      const backward = await syncBatchNormBackward(forward.saved, gradOutput, {
        device,
        group,
      });
      parts.push({
        results: await download(device, part, forward.output, backward),
        running: await downloadState(device, forward.state),
      });
      state = forward.state;
      states.push(state);
    }
    return { states, parts };
  });
  for (const [index, pass] of configuration.steps.entries()) {
    const what = `step ${index} over ${cuts.length} ranks`;
    for (const { states, parts } of ranks) {
      assert.equal(states[index + 1].numBatchesTracked, pass.exact.numBatchesTracked ?? 0, what);
      assert.deepEqual(parts[index].running, ranks[0].parts[index].running, what);
    }
    const actual = {
      ...join(ranks.map(({ parts }) => parts[index].results)),
      ...ranks[0].parts[index].running,
    };
    const before = await stateToHost(device, ranks[0].states[index]);
    assertResults(kit, configuration, pass, before, actual, what, index + 1);
  }
}

/** Evaluation and its gradients, from the exact running statistics of the last step as PyTorch's are. */
async function assertEvaluation<A>(
  kit: DeviceKit<A>,
  device: Device<A>,
  configuration: Configuration,
): Promise<void> {
  const { evaluation } = configuration;
  if (evaluation === null) return;
  const before = hostState(configuration, configuration.steps.at(-1)?.exact);
  const state = stateFromHost(device, before);
  const { input, gradOutput, options } = upload(device, configuration, evaluation);
  const output = batchNormInfer(state, input, { device }, options);
  const backward = batchNormInferBackward(state, input, gradOutput, { device }, options);
  const actual = await download(device, configuration, output, backward);
  assertResults(kit, configuration, evaluation, before, actual, "evaluation", 1);
}

/**
 * Compares with float64 at the device's own precision, and with PyTorch's own numbers at PyTorch's tolerances.
 *
 * Against `exact`, relative: `kit.ulps` units in the last place of the storage, per step for the running statistics, as
 * each adds its own to what it was given. Absolute: `kit.ulps` units of float32, in which nothing narrower computes, of
 * the terms that cancel ({@linkcode scalesOf}); float16 tensors add the spacing of float16 near 0, 2^-24.
 */
function assertResults<A>(
  { ulps }: DeviceKit<A>,
  configuration: Configuration,
  pass: Pass,
  before: BatchNormState<Float32Array>,
  actual: Actual,
  what: string,
  steps: number,
): void {
  const { exact, torch } = pass;
  const scales = scalesOf(configuration, pass, before, what === "evaluation");
  const keys = Object.keys(exact).filter((key) => key !== "numBatchesTracked") as Key[];
  assert.deepEqual(Object.keys(actual).sort(), keys.toSorted(), `${what}: which results there are`);
  for (const key of keys) {
    const storage = TENSORS.includes(key) ? configuration.dtype : "float32";
    const units = ulps * (key.startsWith("running") ? steps : 1);
    const spacing = storage === "float16" ? ulps * 2 ** -24 : 0;
    const term = units * EPSILON.float32;
    const absolute = Array.from(scales[key], (size) => term * size + spacing);
    const relative = units * EPSILON[storage];
    const is = actual[key]!;
    const wanted = Float32Array.from(exact[key]!); // The shortest decimal is not quite the float32.
    assertClose(is, wanted, { absolute, relative }, `${what}, ${key} against exact`);
    if (configuration.torchWithinTolerance) {
      assertClose(is, torch[key]!, PYTORCH[storage], `${what}, ${key} against torch`);
    }
  }
}

/**
 * How large the terms are whose sum each result is: its rounding errors are fractions of these, however near to 0 they
 * leave the result.
 *
 * y = xhat*w + b + residual. dx = w*s*(dy - S1/N - xhat*sum(dy*xhat)/N): terms of w*s*max|dy|; one product in
 * evaluation. dweight = sum dy*xhat and dbias = sum dy: the sums of their absolute terms. The running mean: (1-f)*old and
 * f*max|x|. A variance has no terms that cancel; dresidual is a copy.
 */
function scalesOf(
  { shape, eps, momentum }: Configuration,
  { x, dy, residual }: Pass,
  before: BatchNormState<Float32Array>,
  evaluates: boolean,
): Scales {
  const channels = shape[1];
  const inner = product(shape.slice(2));
  const { runningMean, runningVar, weight, bias } = before;
  const batch = statistics({ values: x, channels, inner });
  const running = evaluates && runningMean !== null;
  const [mean, variance] = running ? [runningMean, runningVar!] : [batch.mean, batch.variance];
  const zeros = () => new Float64Array(channels);
  const [largestX, largestDy, dweight, dbias] = [zeros(), zeros(), zeros(), zeros()];
  const channelOf = (at: number) => Math.trunc(at / inner) % channels;
  const invstd = Array.from(variance, (v) => v + eps === 0 ? 0 : 1 / Math.sqrt(v + eps));
  const y = x.map((value, at) => {
    const c = channelOf(at);
    const xhat = Math.abs((value - mean[c]) * invstd[c]);
    largestX[c] = Math.max(largestX[c], Math.abs(value));
    largestDy[c] = Math.max(largestDy[c], Math.abs(dy[at]));
    dweight[c] += Math.abs(dy[at]) * xhat;
    dbias[c] += Math.abs(dy[at]);
    // Next to 0 the resolution is that of the mean, not of the value: as in the law, 1 standard deviation at least.
    return Math.max(1, xhat) * Math.abs(weight?.[c] ?? 1) + Math.abs(bias?.[c] ?? 0) +
      Math.abs(residual?.[at] ?? 0);
  });
  const dx = x.map((_, at) => {
    const c = channelOf(at);
    return running ? 0 : Math.abs(weight?.[c] ?? 1) * invstd[c] * largestDy[c];
  });
  const factor = momentum ?? 1 / (before.numBatchesTracked + 1);
  return {
    y,
    dx,
    dweight,
    dbias,
    dresidual: new Float64Array(x.length),
    runningMean: largestX.map((size, c) =>
      (1 - factor) * Math.abs(runningMean?.[c] ?? 0) + factor * size
    ),
    runningVar: zeros(),
  };
}

/** The state of a configuration on the host: fresh, or with the running statistics of a step. */
function hostState(
  { shape, eps, momentum, weight, bias, tracked }: Configuration,
  after?: Results,
): BatchNormState<Float32Array> {
  const numFeatures = shape[1];
  const vector = (values?: ArrayLike<number> | null) => values ? Float32Array.from(values) : null;
  const filled = (value: number) => new Float32Array(numFeatures).fill(value);
  return {
    numFeatures,
    eps,
    momentum,
    weight: vector(weight),
    bias: vector(bias),
    runningMean: tracked ? vector(after?.runningMean) ?? filled(0) : null,
    runningVar: tracked ? vector(after?.runningVar) ?? filled(1) : null,
    numBatchesTracked: after?.numBatchesTracked ?? 0,
  };
}

function initialState<A>(device: Device<A>, configuration: Configuration): BatchNormState<A> {
  return stateFromHost(device, hostState(configuration));
}

/** The arguments of one pass on the device, each in its own memory order. */
function upload<A>(
  device: Device<A>,
  { shape, format, gradOutputFormat, dtype, activation, residualFormat }: Configuration,
  { x, dy, residual }: Pass,
): {
  readonly input: Tensor<A>;
  readonly gradOutput: Tensor<A>;
  readonly options: { readonly activation?: "relu"; readonly residual?: Tensor<A> };
} {
  const put = (values: readonly number[], format: Format) => {
    const lying = format === "channelsFirst" ? values : permute(values, sizes(shape), format);
    return tensor(device, lying, shape, { dtype, format });
  };
  return {
    input: put(x, format),
    gradOutput: put(dy, gradOutputFormat ?? format),
    options: {
      ...(activation && { activation }),
      ...(residual && residualFormat && { residual: put(residual, residualFormat) }),
    },
  };
}

/** Reads the results of a pass, back in logical channels-first order, and checks what kind of tensors they are. */
async function download<A>(
  device: Device<A>,
  { shape, format, dtype, residualFormat }: Configuration,
  output: Tensor<A>,
  { gradInput, gradWeight, gradBias, gradResidual }: Backward<A>,
): Promise<Actual> {
  const get = async (result: Tensor<A>, wanted: Format) => {
    assert.deepEqual([result.shape, result.format, result.dtype], [shape, wanted, dtype]);
    const values = await toArray(device, result);
    return wanted === "channelsFirst" ? values : permute(values, sizes(shape), "channelsFirst");
  };
  return {
    y: await get(output, format),
    dx: await get(gradInput, format),
    ...(gradWeight !== null && { dweight: await device.download(gradWeight) }),
    ...(gradBias !== null && { dbias: await device.download(gradBias) }),
    ...(gradResidual && { dresidual: await get(gradResidual, residualFormat ?? format) }),
  };
}

async function downloadState<A>(device: Device<A>, state: BatchNormState<A>): Promise<Actual> {
  const { runningMean, runningVar } = await stateToHost(device, state);
  return runningMean && runningVar ? { runningMean, runningVar } : {};
}

/** Samples [from, to) of three ranks, unevenly; a small batch leaves the middle rank empty. */
function cut(samples: number): readonly (readonly [number, number])[] {
  const [a, b] = samples < 5 ? [Math.ceil(samples / 2), Math.ceil(samples / 2)] : [1, samples - 2];
  return [[0, a], [a, b], [b, samples]];
}

/** A rank's part of a pass and the configuration with that part's shape. */
function slice(
  configuration: Configuration,
  pass: Pass,
  [from, to]: readonly [number, number],
): readonly [Configuration, Pass] {
  const [, ...sample] = configuration.shape;
  const part = (values: readonly number[]) =>
    values.slice(from * product(sample), to * product(sample));
  return [{ ...configuration, shape: [to - from, ...sample] }, {
    ...pass,
    x: part(pass.x),
    dy: part(pass.dy),
    ...(pass.residual && { residual: part(pass.residual) }),
  }];
}

/** Results of all ranks: tensors one after the other, gradients of the parameters summed. */
function join(parts: readonly Actual[]): Actual {
  const keys = Object.keys(parts[0]) as Key[];
  return Object.fromEntries(keys.map((key) => {
    const all = parts.map((part) => Array.from(part[key]!));
    const summed = () => all[0].map((_, c) => all.reduce((total, values) => total + values[c], 0));
    return [key, TENSORS.includes(key) ? all.flat() : summed()];
  }));
}

function sizes(shape: readonly number[]): { readonly channels: number; readonly inner: number } {
  return { channels: shape[1], inner: product(shape.slice(2)) };
}

function product(extents: readonly number[]): number {
  return extents.reduce((total, extent) => total * extent, 1);
}
