/**
 * The law at length: `deno task law --cases 10000 --seed 1`.
 *
 * Draws scenarios, checks each on the reference device over the in-process group, and says what was drawn. A
 * counterexample is shrunk, printed with the line that replays it, and makes the exit code 1.
 */

import fc from "fast-check";
import { integer, on, type Program } from "../examples/command_line.ts";
import { runProgram } from "../examples/run_program.ts";
import { wasmDevice } from "../kernels/wasm_device.ts";
import { referenceDevice, runRanks } from "../mod.ts";
import { assertSame, exactAlone, exactRank } from "./exact/law.ts";
import { type ExactScenario, exactScenarios, rowsOf } from "./exact/scenario.ts";
import { innerOf, samplesOf, type Scenario, scenarios, sliceOf } from "./scenario.ts";
import { checkLaw } from "./suites/law.ts";
import { trainRank } from "./training.ts";

/** What the flags say. */
interface LawFlags {
  readonly cases: number;
  /** Undefined for the clock's. */
  readonly seed: number | undefined;
  /** Whether bits are compared, on exact devices. */
  readonly exact: boolean;
}

const LAW: Program<LawFlags> = {
  usage: "deno task law",
  action: "check the law",
  about: `\
Draws batches, cuts each over some ranks, and checks that the ranks compute what one rank computes
from all of it: on the reference device, in one thread.`,
  flags: {
    cases: integer({
      ...{ from: 1, to: 2 ** 31 - 1, usual: 1000 },
      help: "how many batches to check",
    }),
    seed: integer({
      ...{ from: 0, to: 2 ** 31 - 1, usual: undefined },
      help: "what to draw them from (the clock)",
    }),
    exact: on("compare bits, on the exact reference and Wasm devices, ranks and rows in any order"),
  },
  notes: "Exits with 1 and the smallest counterexample if there is one, with 2 for a wrong flag.",
};

/** Features of a scenario worth counting: a law that never saw an empty rank has not been tested. */
const FEATURES: Record<string, (scenario: Scenario) => boolean> = {
  "uneven ranks": ({ counts }) => new Set(counts).size > 1,
  "an empty rank": ({ counts }) => counts.includes(0),
  "all ranks empty": (scenario) => samplesOf(scenario) === 0,
  "one value on a rank": (scenario) => innerOf(scenario) === 1 && scenario.counts.includes(1),
  "one value in all": (scenario) => samplesOf(scenario) * innerOf(scenario) === 1,
  "8 ranks": ({ counts }) => counts.length === 8,
  "float16": ({ dtype }) => dtype === "float16",
  "channels last": ({ format }) => format === "channelsLast",
  "no weight or bias": ({ scale, bias }) => !scale && !bias,
  "cumulative average": ({ momentum }) => momentum === null,
  "mean 1e3, std 1e-3": ({ spread }) => spread === "offset",
  "constant, eps 0": ({ spread, eps }) => spread === "constant" && eps === 0,
  "outlier first": ({ spread }) => spread === "outlierFirst",
  "residual and ReLU": ({ residual, relu }) => residual !== null && relu,
};

async function main({ cases, seed = Date.now() % 2 ** 31, exact }: LawFlags): Promise<number> {
  if (exact) return await mainExactly(cases, seed);
  const device = referenceDevice();
  const seen = new Map(Object.keys(FEATURES).map((name) => [name, 0]));
  const start = performance.now();
  const property = fc.asyncProperty(scenarios(device.info.float16), async (scenario) => {
    for (const [name, has] of Object.entries(FEATURES)) {
      if (has(scenario)) seen.set(name, (seen.get(name) ?? 0) + 1);
    }
    await checkLaw(
      device,
      1,
      scenario,
      (numbers) =>
        runRanks(
          scenario.counts.length,
          (group) => trainRank(device, scenario, sliceOf(scenario, group.rank), group, numbers),
        ),
    );
  });
  const outcome = await fc.check(property, { numRuns: cases, seed });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  if (outcome.failed) {
    console.error(fc.defaultReportMessage(outcome));
    console.error(outcome.errorInstance);
    console.error(`replay: deno task law --cases ${cases} --seed ${seed}`);
    return 1;
  }
  console.log(
    `k ranks equal one rank: ${outcome.numRuns} cases in ${seconds} s, seed ${seed}, no counterexample`,
  );
  for (const [name, count] of seen) console.log(`  ${String(count).padStart(7)} with ${name}`);
  return 0;
}

const EXACT_FEATURES: Record<string, (scenario: ExactScenario) => boolean> = {
  "8 ranks": ({ partition }) => partition.ranks === 8,
  "an empty rank": ({ batch, partition }) =>
    rowsOf(batch, partition).some(({ length }) => length === 0),
  "float16": ({ batch }) => batch.dtype === "float16",
  "channels last": ({ partition }) => partition.format === "channelsLast",
  "NaN or infinities": ({ batch }) => batch.spread === "special",
  "2^-120 to 2^120": ({ batch }) => batch.spread === "wide",
  "a constant channel": ({ batch }) => batch.spread === "constant",
  "weights": ({ batch }) => batch.weights !== "alike",
  "weights to 2^24": ({ batch }) => batch.weights === "large",
  "lengths": ({ batch }) => batch.weights === "lengths" && batch.spatial.length === 1,
};

/** The law to the last bit: ranks on the one device or the other, against one rank on the reference. */
async function mainExactly(cases: number, seed: number): Promise<number> {
  const reference = referenceDevice({ exact: true });
  await using wasm = await wasmDevice({ exact: true });
  const seen = new Map(Object.keys(EXACT_FEATURES).map((name) => [name, 0]));
  const start = performance.now();
  const property = fc.asyncProperty(exactScenarios(), async (scenario) => {
    for (const [name, has] of Object.entries(EXACT_FEATURES)) {
      if (has(scenario)) seen.set(name, (seen.get(name) ?? 0) + 1);
    }
    const { seed, ranks } = scenario.partition;
    const parts = await runRanks(ranks, (group) =>
      // Wasm by two to one, and at times beside the reference: their bits are the same.
      (seed + (seed % 2) * group.rank) % 3 === 0
        ? exactRank(reference, group, scenario)
        : exactRank(wasm, group, scenario));
    assertSame(parts, await exactAlone(scenario));
  });
  const outcome = await fc.check(property, { numRuns: cases, seed });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  if (outcome.failed) {
    console.error(fc.defaultReportMessage(outcome));
    console.error(outcome.errorInstance);
    console.error(`replay: deno task law --exact --cases ${cases} --seed ${seed}`);
    return 1;
  }
  console.log(
    `k ranks have the bits of one rank: ${outcome.numRuns} partitions in ${seconds} s, seed ${seed}, no counterexample`,
  );
  for (const [name, count] of seen) console.log(`  ${String(count).padStart(7)} with ${name}`);
  return 0;
}

Deno.exit(await runProgram(LAW, Deno.args, main));
