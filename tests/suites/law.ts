/**
 * The law: k ranks equal one rank. Any partition of a batch over any number of ranks gives the outputs, gradients and
 * new state of one rank that holds the whole batch, which are those of the oracle.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type BatchNormState,
  type Device,
  type ProcessGroup,
  referenceDevice,
  runRanks,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, type GroupKit, register, using } from "../kit.ts";
import * as oracle from "../oracle.ts";
import {
  firstState,
  innerOf,
  makeSteps,
  samplesOf,
  type Scenario,
  scenarios,
  sliceOf,
  type StepData,
} from "../scenario.ts";
import { type StepResult, trainRank } from "../training.ts";

/**
 * Checks the law on one scenario.
 *
 * @param device trains the whole batch on one rank
 * @param ulps the device's accuracy, as in its kit
 * @param scenario the batch, its partition and the configuration
 * @param runParts trains each rank's slice of the numbers, synchronised, and returns every rank's results
 * @throws where the law does not hold
 */
export async function checkLaw<A>(
  device: Device<A>,
  ulps: number,
  scenario: Scenario,
  runParts: (numbers: readonly StepData[]) => Promise<readonly (readonly StepResult[])[]>,
): Promise<void> {
  const samples = samplesOf(scenario);
  const numbers = makeSteps(scenario);
  const whole = () => trainRank(device, scenario, [0, samples], undefined, numbers);
  if (samples * innerOf(scenario) === 1) {
    await assert.rejects(whole(), RangeError);
    await assert.rejects(runParts(numbers), /more than 1 value per channel/);
    return;
  }
  const alone = await whole();
  const ranks = await runParts(numbers);
  let before = firstState(scenario);
  for (const [step, data] of numbers.entries()) {
    const tolerance = tolerances(ulps, scenario, data);
    const expected = expectation(scenario, data);
    const parts = ranks.map((results) => results[step]);
    const together = join(parts);
    compare(alone[step], expected, tolerance, "one rank against the oracle");
    compare(together, expected, tolerance, `${ranks.length} ranks against the oracle`);
    compare(together, alone[step], tolerance, `${ranks.length} ranks against one`);
    compareStates(scenario, ulps, data, alone[step], parts, before);
    before = alone[step].state;
  }
}

type Numbers = Omit<StepResult, "state">;

/** Outputs side by side, gradients of parameters summed, as data parallelism does. */
function join(ranks: readonly Numbers[]): Numbers {
  const concat = (pick: (rank: Numbers) => readonly number[] | null) =>
    pick(ranks[0]) && ranks.flatMap((rank) => pick(rank) ?? []);
  const add = (pick: (rank: Numbers) => readonly number[] | null) =>
    ranks.map(pick).reduce((a, b) => a && b && a.map((value, c) => value + b[c]));
  return {
    y: ranks.flatMap(({ y }) => y),
    dx: ranks.flatMap(({ dx }) => dx),
    dresidual: concat(({ dresidual }) => dresidual),
    dweight: add(({ dweight }) => dweight),
    dbias: add(({ dbias }) => dbias),
  };
}

function expectation(scenario: Scenario, { x, dy, residual: added }: StepData): Numbers {
  const { channels, relu, residual, scale, bias } = scenario;
  const state = firstState(scenario);
  const batch = { values: x, channels, inner: innerOf(scenario) };
  const y = oracle.trainForward(batch, state, residual && added, relu);
  const gated = Array.from(dy, (value, i) => !relu || y[i] > 0 ? value : 0);
  const { gradInput, gradWeight, gradBias } = oracle.trainBackward(batch, gated, state);
  return {
    y,
    dx: gradInput,
    dresidual: residual && gated,
    dweight: scale ? gradWeight : null,
    dbias: bias ? gradBias : null,
  };
}

interface Tolerances {
  readonly relative: number;
  readonly vectorRelative: number;
  readonly y: readonly number[];
  readonly dx: readonly number[];
  readonly dweight: readonly number[];
  readonly dbias: readonly number[];
}

/**
 * `ulps` units in the last place of the largest term of each formula, element by element. The terms are in units of the
 * output: mean / std, by which a careless formula loses digits, does not occur.
 */
function tolerances(
  ulps: number,
  scenario: Scenario,
  { x, dy, residual: added }: StepData,
): Tolerances {
  const { channels, dtype, residual } = scenario;
  const { weight, bias, eps } = firstState(scenario);
  const inner = innerOf(scenario);
  const relative = ulps * EPSILON[dtype];
  const fine = ulps * EPSILON.float32;
  // Below 2^-14 float16 is spaced evenly, by 2^-24.
  const subnormal = dtype === "float16" ? ulps * 2 ** -24 : 0;
  const { count, mean, variance } = oracle.statistics({ values: x, channels, inner });
  const channelOf = (i: number) => Math.floor(i / inner) % channels;
  const s = variance.map((v) => v + eps === 0 ? 0 : 1 / Math.sqrt(v + eps));
  const w = s.map((_, c) => Math.abs(weight?.[c] ?? 1));
  // A normalized value is taken as 1 at least: the resolution next to 0 is that of the mean, not of the value.
  const xhat = Array.from(
    x,
    (value, i) => Math.max(1, Math.abs(value - mean[channelOf(i)]) * s[channelOf(i)]),
  );
  const sumDy: number[] = s.map(() => 0);
  const sumDyXhat: number[] = s.map(() => 0);
  dy.forEach((value, i) => {
    sumDy[channelOf(i)] += Math.abs(value);
    sumDyXhat[channelOf(i)] += Math.abs(value) * xhat[i];
  });
  return {
    relative,
    vectorRelative: fine,
    y: xhat.map((value, i) => {
      const c = channelOf(i);
      const terms = value * w[c] + Math.abs(bias?.[c] ?? 0) + (residual ? Math.abs(added[i]) : 0);
      return fine * terms + subnormal;
    }),
    dx: xhat.map((value, i) => {
      const c = channelOf(i);
      const terms = Math.abs(dy[i]) + sumDy[c] / count + value * sumDyXhat[c] / count;
      return fine * w[c] * s[c] * terms + subnormal;
    }),
    dweight: sumDyXhat.map((value) => fine * value),
    dbias: sumDy.map((value) => fine * value),
  };
}

function compare(actual: Numbers, expected: Numbers, to: Tolerances, what: string): void {
  const { relative, vectorRelative } = to;
  assertClose(actual.y, expected.y, { absolute: to.y, relative }, `${what}: output`);
  assertClose(actual.dx, expected.dx, { absolute: to.dx, relative }, `${what}: gradInput`);
  assert.deepEqual(actual.dresidual, expected.dresidual, `${what}: gradResidual`);
  for (const name of ["dweight", "dbias"] as const) {
    const [is, wanted] = [actual[name], expected[name]];
    assert.equal(is === null, wanted === null, `${what}: ${name} is there`);
    if (!is || !wanted) continue;
    assertClose(is, wanted, { absolute: to[name], relative: vectorRelative }, `${what}: ${name}`);
  }
}

function compareStates(
  scenario: Scenario,
  ulps: number,
  data: StepData,
  alone: StepResult,
  ranks: readonly StepResult[],
  before: BatchNormState<Float32Array>,
): void {
  const [{ state }] = ranks;
  for (const rank of ranks) {
    assert.deepEqual(rank.state, state, "the new state has the same bits on every rank");
  }
  const { tracked, update, channels, momentum } = scenario;
  const inner = innerOf(scenario);
  const moves = tracked && update && samplesOf(scenario) * inner > 0;
  assert.equal(state.numBatchesTracked, before.numBatchesTracked + (moves ? 1 : 0));
  if (!moves) return assert.deepEqual(state, before, "where nothing is tracked nothing changes");
  const { count, mean, variance } = oracle.statistics({ values: data.x, channels, inner });
  const observed = {
    runningMean: mean,
    runningVar: variance.map((biased) => biased * count / (count - 1)),
  };
  const factor = momentum ?? 1 / state.numBatchesTracked;
  for (const name of ["runningMean", "runningVar"] as const) {
    const old = before[name];
    assert(old !== null);
    const expected = observed[name].map((now, c) => (1 - factor) * old[c] + factor * now);
    // Old and observed may cancel in the mean: units in the last place of either. One rank and several have rounded
    // the statistics that they started from apart, by a unit each.
    const absolute = observed[name].map((now, c) =>
      3 * ulps * EPSILON.float32 * (Math.abs(old[c]) + Math.abs(now))
    );
    for (const actual of [alone.state[name], state[name]]) {
      assert(actual !== null);
      assertClose(actual, expected, { absolute, relative: 0 }, name);
    }
  }
}

/** Registers the law for a device, over ranks of one thread that share it. */
export function deviceLaw<A>(kit: DeviceKit<A>): void {
  register(kit, "any partition of a batch over ranks equals one rank", async () => {
    await using(kit, async (device) => {
      const check = (scenario: Scenario) =>
        checkLaw(device, kit.ulps, scenario, (numbers) =>
          runRanks(
            scenario.counts.length,
            (group) => trainRank(device, scenario, sliceOf(scenario, group.rank), group, numbers),
          ));
      await fc.assert(fc.asyncProperty(scenarios(device.info.float16, kit.ways), check), {
        numRuns: kit.cases ?? 300,
        seed: 2026,
      });
    });
  });
}

/** One rank of {@linkcode groupLaw}; exported so that a rank in another thread can find it. */
export function lawOnReference(group: ProcessGroup, scenario: Scenario): Promise<StepResult[]> {
  return trainRank(referenceDevice(), scenario, sliceOf(scenario, group.rank), group);
}

/** What a rank has done in a scenario: its steps, the error that it got, or nothing where it took no part. */
type Outcome = { readonly steps: StepResult[] } | { readonly failure: string } | null;

/** One rank of many scenarios, each on the first ranks of the world; exported for the same reason. */
export async function manyLawsOnReference(
  group: ProcessGroup,
  drawn: readonly Scenario[],
): Promise<Outcome[]> {
  const firstRanks: ProcessGroup[] = [];
  for (let ranks = 1; ranks <= group.worldSize; ranks++) {
    firstRanks[ranks] = await group.split(group.rank < ranks ? 0 : 1);
  }
  const outcomes: Outcome[] = [];
  for (const scenario of drawn) {
    const ranks = scenario.counts.length;
    if (group.rank >= ranks) outcomes.push(null);
    else {
      outcomes.push(
        await lawOnReference(firstRanks[ranks], scenario).then(
          (steps) => ({ steps }),
          (error) => ({ failure: (error as Error).message }),
        ),
      );
    }
  }
  return outcomes;
}

/** Registers the law for a kind of group, each rank with a reference device of its own. */
export function groupLaw(kit: GroupKit, cases = 100): void {
  const device = referenceDevice();
  const drawing = { numRuns: cases, seed: 2027 };
  register(kit, "any partition of a batch over ranks equals one rank", async () => {
    const check = (scenario: Scenario) =>
      checkLaw(device, 1, scenario, () => kit.run(scenario.counts.length, one, scenario));
    if (kit.costlyStart !== undefined) await checkTogether(kit, drawing);
    else await fc.assert(fc.asyncProperty(scenarios(device.info.float16), check), drawing);
  });
}

const one = { module: import.meta.url, name: "lawOnReference", body: lawOnReference };
const many = { module: import.meta.url, name: "manyLawsOnReference", body: manyLawsOnReference };

/** All scenarios in one run of a kit with a costly start. A counterexample is not shrunk, but named. */
export async function checkTogether(
  kit: GroupKit,
  drawing: { readonly numRuns: number; readonly seed: number },
): Promise<void> {
  const { costlyStart: worldSize = 1 } = kit;
  const device = referenceDevice();
  const drawn = fc.sample(scenarios(device.info.float16), drawing)
    .filter(({ counts }) => counts.length <= worldSize);
  const ranks = await kit.run(worldSize, many, drawn);
  for (const [i, scenario] of drawn.entries()) {
    const outcomes = ranks.map((own) => own[i]).filter((outcome) => outcome !== null);
    assert.equal(outcomes.length, scenario.counts.length);
    const steps = () =>
      outcomes.map((outcome) => {
        if ("failure" in outcome) throw new Error(outcome.failure);
        return outcome.steps;
      });
    await checkLaw(device, 1, scenario, async () => await steps()).catch((cause) => {
      throw new Error(`the law fails for ${JSON.stringify(scenario)}`, { cause });
    });
  }
}
