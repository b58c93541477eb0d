/** Training by weights on a device, in any way that the library has, beside what float64 formulas give. */

import assert from "node:assert/strict";
import {
  type Backward,
  type BatchNormState,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  region,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../mod.ts";
import { assertClose, type DeviceKit, EPSILON } from "./kit.ts";
import { permute } from "./oracle.ts";
import {
  affineOf,
  type WeightedData,
  weightedData,
  weightedOracle,
  type WeightedScenario,
} from "./weighted.ts";

/** What a scenario gives on a rank, in channels-first order. */
export interface Trained {
  readonly y: readonly number[];
  readonly dx: readonly number[];
  readonly dresidual: readonly number[] | null;
  readonly dweight: Float32Array | null;
  readonly dbias: Float32Array | null;
  readonly state: BatchNormState<Float32Array>;
}

/** The state that a scenario begins with. */
export function stateOf<A>(device: Device<A>, scenario: WeightedScenario): BatchNormState<A> {
  const { channels, eps } = scenario;
  const fresh = initBatchNorm(device, channels, { eps, affine: scenario.affine });
  const vector = (array: Float32Array) => device.upload(array);
  const affine = affineOf(scenario);
  return affine ? { ...fresh, weight: vector(affine.weight), bias: vector(affine.bias) } : fresh;
}

/** Some samples of a rank's batch, with all that goes with them. */
export interface Cut<A> {
  readonly input: Tensor<A>;
  readonly gradOutput: Tensor<A>;
  readonly residual?: Tensor<A>;
  readonly weighing: { readonly weights?: Tensor<A> | A; readonly lengths?: Int32Array };
}

/** A rank's batch and what it is trained with. */
export interface Rank<A> {
  readonly state: BatchNormState<A>;
  readonly effects: { readonly device: Device<A>; readonly group: ProcessGroup };
  readonly samples: number;
  /** Samples [from, to) of the rank. */
  readonly cut: (from: number, to: number) => Cut<A>;
  readonly activation: { readonly activation?: "relu" };
}

/** What a way of training gives: its tensors may be in parts. */
export interface Results<A> extends Pick<Backward<A>, "gradWeight" | "gradBias"> {
  readonly outputs: readonly Tensor<A>[];
  readonly gradInputs: readonly Tensor<A>[];
  readonly gradResiduals: readonly Tensor<A>[];
  readonly state: BatchNormState<A>;
}

/** Trains a rank: one way forward and back. */
export type Way = <A>(rank: Rank<A>) => Promise<Results<A>>;

/** Ordinary batch norm over the group. */
export const plainly: Way = async ({ state, effects, samples, cut, activation }) => {
  const { input, gradOutput, residual, weighing } = cut(0, samples);
  const options = { ...weighing, ...activation, ...(residual && { residual }) };
  const forward = await syncBatchNormForward(state, input, effects, options);
  return resultsOf(forward, await syncBatchNormBackward(forward.saved, gradOutput, effects));
};

/** The results of a batch in one part. */
export function resultsOf<A>(
  { output, state }: { readonly output: Tensor<A>; readonly state: BatchNormState<A> },
  { gradInput, gradResidual, gradWeight, gradBias }: Backward<A>,
): Results<A> {
  return {
    ...{ outputs: [output], gradInputs: [gradInput], state, gradWeight, gradBias },
    gradResiduals: gradResidual ? [gradResidual] : [],
  };
}

/** Trains a scenario, each rank on its part. */
export async function trained<A>(
  device: Device<A>,
  scenario: WeightedScenario,
  data: WeightedData,
  way: Way = plainly,
): Promise<readonly Trained[]> {
  const { counts, channels: C, inner, kind, dtype, format, gradFormat, relu, residual } = scenario;
  return await runRanks(counts.length, (group) =>
    region(device, async (scope) => {
      const first = counts.slice(0, group.rank).reduce((sum, count) => sum + count, 0);
      const cut = (start: number, end: number): Cut<A> => {
        const [from, to] = [first + start, first + end];
        const put = (values: Float32Array, format: WeightedScenario["format"]) => {
          const own = values.slice(from * C * inner, to * C * inner);
          const laid = permute(own, { channels: C, inner }, format);
          const shape = [to - from, C, inner];
          return tensor(scope, format === "channelsLast" ? laid : own, shape, { dtype, format });
        };
        const own = data.weights.slice(from * inner, to * inner);
        const perSample = Float32Array.from({ length: to - from }, (_, n) => own[n * inner]);
        return {
          input: put(data.x, format),
          gradOutput: put(data.dy, gradFormat),
          ...(residual && { residual: put(data.residual, gradFormat) }),
          weighing: kind === "lengths"
            ? { lengths: data.lengths.slice(from, to) }
            : kind === "perSample"
            ? { weights: scope.upload(perSample) }
            : {
              // A mask loses nothing as float16.
              weights: tensor(scope, own, [to - from, 1, inner], {
                ...{ format, dtype: kind === "mask" ? dtype : "float32" },
              }),
            },
        };
      };
      const read = async (tensors: readonly Tensor<A>[]) => {
        const all = tensors.map(async (tensor) => {
          const values = await toArray(scope, tensor);
          if (tensor.format === "channelsFirst") return [...values];
          return [...permute(values, { channels: C, inner }, "channelsFirst")];
        });
        return (await Promise.all(all)).flat();
      };
      const results = await way({
        state: stateOf(scope, scenario),
        effects: { device: scope, group },
        samples: counts[group.rank],
        cut,
        activation: relu ? { activation: "relu" as const } : {},
      });
      const vector = (array: A | null) => array && scope.download(array);
      return {
        y: await read(results.outputs),
        dx: await read(results.gradInputs),
        dresidual: residual ? await read(results.gradResiduals) : null,
        dweight: await vector(results.gradWeight),
        dbias: await vector(results.gradBias),
        state: await stateToHost(scope, results.state),
      };
    }));
}

/** The ranks' parts side by side, gradients of parameters added. */
export function joined(ranks: readonly Trained[]): readonly [Trained, ...Trained[]] {
  const add = (name: "dweight" | "dbias") =>
    ranks.map((rank) => rank[name]).reduce((a, b) => a && b && a.map((value, c) => value + b[c]));
  const whole = {
    ...ranks[0],
    y: ranks.flatMap(({ y }) => y),
    dx: ranks.flatMap(({ dx }) => dx),
    dresidual: ranks[0].dresidual && ranks.flatMap(({ dresidual }) => dresidual ?? []),
    dweight: add("dweight"),
    dbias: add("dbias"),
  };
  return [whole, ...ranks];
}

/** What float64 formulas give of a scenario. */
export interface Wanted
  extends Pick<ReturnType<typeof weightedOracle>, "y" | "dx" | "dresidual" | "dweight" | "dbias"> {
  /** How large the terms are. */
  readonly terms: ReturnType<typeof weightedOracle>["terms"];
  /** Positive weights: of all, or the least of any group of samples that has statistics of its own. */
  readonly positives: number;
  /** What running statistics follow; null where nothing counts. */
  readonly observed:
    | { readonly mean: ArrayLike<number>; readonly variance: ArrayLike<number> }
    | null;
}

/** What ordinary batch norm must give. */
export function wantedOf(scenario: WeightedScenario, data: WeightedData): Wanted {
  const wanted = weightedOracle(scenario, data);
  const { W, mean, variance, positives } = wanted;
  const unbiased = variance.map((v) => v * (W > 1 ? W / (W - 1) : 1));
  return { ...wanted, observed: positives > 0 ? { mean, variance: unbiased } : null };
}

/** Trains a scenario in a way and compares all that comes of it. */
export async function checkWeights<A>(
  kit: DeviceKit<A>,
  device: Device<A>,
  scenario: WeightedScenario,
  {
    data = weightedData(scenario),
    wanted = wantedOf(scenario, data),
    way = plainly,
    reads = false,
  }: {
    readonly data?: WeightedData;
    readonly wanted?: Wanted;
    readonly way?: Way;
    /** Whether the way reads statistics back where there is one rank. */
    readonly reads?: boolean;
  } = {},
): Promise<void> {
  const { dtype, counts, kind, relu, residual, affine } = scenario;
  // Alone, the host knows only what it has given itself, or what a device reads back at once.
  const isBlind = counts.length === 1 && kind !== "lengths" && !device.toWireNow && !reads;
  if (isBlind && wanted.positives < 2 && counts[0] > 0) return;
  if (wanted.positives === 1) {
    await assert.rejects(trained(device, scenario, data, way), /more than 1 value per channel/);
    return;
  }
  const [whole, ...ranks] = joined(await trained(device, scenario, data, way));
  const fine = kit.ulps * EPSILON.float32;
  const slack = (terms: ArrayLike<number>) => ({
    absolute: Array.from(
      terms,
      (term) => 2 * fine * term + (dtype === "float16" ? kit.ulps * 2 ** -24 : 0),
    ),
    relative: kit.ulps * EPSILON[dtype],
  });
  const places = [...data.x.keys()].filter((i) => kit.nonFinite || !Number.isNaN(data.x[i]));
  const compare = (
    is: ArrayLike<number>,
    of: ArrayLike<number>,
    terms: ArrayLike<number>,
    what: string,
  ) =>
    assertClose(
      places.map((i) => is[i]),
      places.map((i) => of[i]),
      slack(places.map((i) => terms[i])),
      what,
    );
  compare(whole.y, wanted.y, wanted.terms.y, "y");
  compare(whole.dx, wanted.dx, wanted.terms.dx, "dx");
  if (residual) compare(whole.dresidual!, wanted.dresidual, wanted.terms.y, "dresidual");
  if (affine) {
    const loose = (terms: ArrayLike<number>) => ({
      absolute: Array.from(terms, (term) => 2 * counts.length * fine * term + fine),
      relative: fine,
    });
    assertClose(whole.dweight!, wanted.dweight, loose(wanted.terms.dweight), "dweight");
    assertClose(whole.dbias!, wanted.dbias, loose(wanted.terms.dbias), "dbias");
  }
  assert.equal(relu && whole.y.some((value) => value < 0), false);
  const { observed } = wanted;
  for (const { state } of ranks) {
    assert.deepEqual(state, ranks[0].state, "states of all ranks");
    if (observed === null) {
      assert.equal(state.numBatchesTracked, 0);
      assert(state.runningMean!.every((value) => value === 0));
      continue;
    }
    const units = { absolute: 2 * fine, relative: 8 * fine };
    const { mean, variance } = observed;
    assertClose(state.runningMean!, Array.from(mean, (m) => 0.1 * m), units, "running mean");
    const running = Array.from(variance, (v) => 0.9 + 0.1 * v);
    assertClose(state.runningVar!, running, units, "running variance");
  }
}
