/**
 * The law at length: `deno task law --cases 10000 --seed 1`.
 *
 * Draws scenarios, checks each on the reference device over the in-process group, and says what was drawn. A
 * counterexample is shrunk, printed with the line that replays it, and makes the exit code 1.
 */

import { parseArgs } from "node:util";
import fc from "fast-check";
import { referenceDevice, runRanks } from "../mod.ts";
import { innerOf, samplesOf, type Scenario, scenarios, sliceOf } from "./scenario.ts";
import { checkLaw } from "./suites/law.ts";
import { trainRank } from "./training.ts";

const USAGE = `deno task law [--cases N] [--seed N]
  --cases N  how many partitions of batches to check (default 1000)
  --seed N   what to draw them from (default: the clock)`;

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

/** Reads the command line; throws one line for what is wrong with it. */
function parse(args: string[]): { readonly cases: number; readonly seed: number } | "help" {
  const { values, positionals } = parseArgs({
    args,
    options: { cases: { type: "string" }, seed: { type: "string" }, help: { type: "boolean" } },
    // Not strict, since its errors are several lines long and never say what was wanted.
    strict: false,
  });
  const [unknown] = Object.keys(values).filter((name) => !["cases", "seed", "help"].includes(name));
  if (unknown !== undefined || positionals.length > 0) {
    const what = unknown === undefined ? positionals[0] : `--${unknown}`;
    throw new RangeError(
      `Cannot check the law as it takes --cases N, --seed N and --help: current argument is ${what}`,
    );
  }
  if (values.help) return "help";
  const integer = (name: "cases" | "seed", usual: number, smallest: number) => {
    const text = values[name] ?? String(usual);
    const value = Number(text);
    const fits = typeof text === "string" && /^\d+$/.test(text) && value >= smallest &&
      value < 2 ** 31;
    if (fits) return value;
    throw new RangeError(
      `Cannot check the law as --${name} must be an integer from ${smallest} to ${2 ** 31 - 1}: ` +
        `current value is ${JSON.stringify(text)}`,
    );
  };
  return { cases: integer("cases", 1000, 1), seed: integer("seed", Date.now() % 2 ** 31, 0) };
}

async function main(): Promise<number> {
  let options: ReturnType<typeof parse>;
  try {
    options = parse(Deno.args);
  } catch (error) {
    console.error((error as Error).message);
    return 2;
  }
  if (options === "help") {
    console.log(USAGE);
    return 0;
  }
  const { cases, seed } = options;
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
      () =>
        runRanks(
          scenario.counts.length,
          (group) => trainRank(device, scenario, sliceOf(scenario, group.rank), group),
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

Deno.exit(await main());
