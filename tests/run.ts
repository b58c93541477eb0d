/**
 * `deno task test` and `deno task test:full`: the tests by `deno test`, and a last line that says how many passed, and what
 * was left out. Which files and permissions they have stands in deno.json.
 */

import { stripVTControlCharacters } from "node:util";
import { LEFT_OUT, type Tier } from "./tier.ts";

const USAGE = `Usage: deno task test [options] [files]        what every change is tried with
       deno task test:full [options] [files]   everything
Options:
  --left-out            of the full tier only what the quick one leaves out
  --filter=TEXT         tests with this text, or /pattern/, in their name
  --fail-fast           end at the first failure
  --junit-path=PATH     write a report
  --help                show this
Types are left to deno task ok.`;

/** What stands in the folder of tests that no quick run has. */
const FULL = "tests/full";
/** Its longest files, some of which mostly wait, begin first: the others fill the cores while these end. */
const LONGEST = [
  ...["webgpu_options", "webgpu_suite", "node", "webgpu_numbers", "workers", "webgpu_kernels"],
  ...["openmpi", "mpich", "relay", "package", "pauses", "demo_groups", "docs_programs"],
].map((name) => `${FULL}/${name}_test.ts`);
const FLAGS = "--no-check --parallel --permission-set".split(" ");
const PASSED_ON = /^--(filter|junit-path)=.+$|^--fail-fast$/;

/** Counts of a run, and of each kit the number of tests that were left to the full tier. */
interface Summary {
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  readonly leftOut: ReadonlyMap<string, number>;
  /** Files outside the folder that left something out: `--left-out` would never run it. */
  readonly strayed: readonly string[];
}

/** What is asked for, or a sentence that says what is wrong with it. */
type Asked =
  | { readonly tier: Tier; readonly leftOut: boolean; readonly args: readonly string[] }
  | { readonly exit: number; readonly text: string };

function parse([tier, ...args]: readonly string[]): Asked {
  if (args.includes("--help")) return { exit: 0, text: USAGE };
  if (tier !== "quick" && tier !== "full") {
    const text = `Cannot run the tests as the tier must be quick or full: current value is ${tier}`;
    return { exit: 2, text };
  }
  const leftOut = args.includes("--left-out");
  const rest = args.filter((arg) => arg !== "--left-out");
  const wrong = rest.find((arg) => arg.startsWith("-") && !PASSED_ON.test(arg));
  if (wrong !== undefined) {
    return {
      exit: 2,
      text: `Cannot run the tests as ${wrong} is no option of this task\n${USAGE}`,
    };
  }
  if (leftOut && tier === "quick") {
    return {
      exit: 2,
      text:
        "Cannot run what the quick tier leaves out as the tier is quick: say deno task test:full",
    };
  }
  return { tier, leftOut, args: leftOut ? [...rest, ...LONGEST, FULL] : rest };
}

/** Reads the report of `deno test`, whose last lines count, and whose ignored tests may stand for others. */
export function summarize(report: string): Summary {
  const lines = stripVTControlCharacters(report).split("\n");
  const leftOut = new Map<string, number>();
  const strayed: string[] = [];
  let standing = 0;
  for (const line of lines) {
    const [, file = "", name = ""] = /^(?:(\S+) => )?(.*) \.\.\. ignored/.exec(line) ?? [];
    const [what, count] = LEFT_OUT.exec(name) ?? [];
    if (what === undefined) continue;
    standing++;
    const kit = name.slice(0, -what.length);
    leftOut.set(kit, (leftOut.get(kit) ?? 0) + Number(count));
    if (file && !file.startsWith(`./${FULL}/`)) strayed.push(file);
  }
  const counts = lines.findLast((line) => /^(ok|FAILED) \| \d+ passed/.test(line)) ?? "";
  const number = (what: string) => Number(new RegExp(`(\\d+) ${what}`).exec(counts)?.[1] ?? 0);
  return {
    ...{ passed: number("passed"), failed: number("failed") },
    ...{ ignored: number("ignored") - standing, leftOut, strayed },
  };
}

/** The last line of a run. */
export function lastLine({ passed, failed, ignored, leftOut }: Summary): string {
  const kits = [...leftOut].map(([kit, count]) => `${kit} (${count})`);
  const total = [...leftOut.values()].reduce((sum, count) => sum + count, 0);
  return [
    `${passed} passed, ${failed} failed, ${ignored} ignored`,
    ...(total ? [`${total} left to deno task test:full: ${kits.join(", ")}`] : []),
  ].join("; ");
}

/** How a run of `deno test` ended. */
export interface Ended {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly report: string;
}

/** Runs `deno test`, shows its report as it comes, and returns it. */
export async function runTests(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Ended> {
  const jobs = Deno.env.get("DENO_JOBS") ?? navigator.hardwareConcurrency + 1;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", ...args],
    // One more than there are cores, as some tests only wait: for processes, deadlines, a GPU.
    env: { ...env, DENO_JOBS: `${jobs}` },
    stdout: "piped",
  }).spawn();
  let report = "";
  const text = new TextDecoder();
  for await (const bytes of child.stdout) {
    report += text.decode(bytes, { stream: true });
    for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
  }
  const { code, signal } = await child.status;
  return { code, signal, report };
}

/**
 * The exit code of a run. A driver of a software GPU may crash when its process ends (seen with llvmpipe: a corrupted heap, in
 * one run of many): where that is after the last test, and all have passed, it is told and no failure.
 */
export function exitCode({ code, signal, report }: Ended): number {
  const isOver = /^ok \| \d+ passed/m.test(stripVTControlCharacters(report));
  if (signal === null || !isOver) return code;
  console.error(`All tests had passed when deno itself was ended by ${signal}`);
  return 0;
}

if (import.meta.main) {
  const asked = parse(Deno.args);
  if ("exit" in asked) {
    (asked.exit ? console.error : console.log)(asked.text);
    Deno.exit(asked.exit);
  }
  const ended = await runTests([...FLAGS, ...asked.args], { SYNCBN_TIER: asked.tier });
  const summary = summarize(ended.report);
  for (const file of summary.strayed) {
    console.error(
      `Cannot leave tests out in ${file} as only files of ${FULL} may: move them there`,
    );
  }
  console.log(lastLine(summary));
  Deno.exit(exitCode(ended) || (summary.strayed.length > 0 ? 1 : 0));
}
