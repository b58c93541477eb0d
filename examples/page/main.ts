/**
 * `deno task page`: the examples of PyTorch's page of SyncBatchNorm, and what they show.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { RUNNERS, StartError } from "./groups.ts";
import { report } from "./report.ts";

const HELP = `\
Runs the two examples of PyTorch's page of SyncBatchNorm, and compares what came of them.

Usage: deno task page [flags]

  --group NAME  in-process, workers or mpi: ranks are 4 tasks of one thread, 4 threads, or the
                processes of your mpirun (in-process)
  --small       an input of shape (4, 100, 3, 2, 2) on each rank instead of the page's
                (20, 100, 35, 45, 10), which takes a quarter of a minute and 2 GB
  --help        print this

Exits with 1 if the ranks do not learn what fewer processes learn, and with 2 for a wrong flag or if
a permission or MPI is not there.`;

/** What the command line asks for. */
interface Command {
  readonly group: keyof typeof RUNNERS;
  readonly shape: readonly number[];
  readonly help: boolean;
}

/** Runs the examples and returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  try {
    const { group, shape, help } = parse(args);
    if (help) {
      console.log(HELP);
      return 0;
    }
    const shown = await RUNNERS[group](shape);
    if (shown === null) return 0;
    const { text, holds } = await report(shown, shape);
    console.log(text);
    return holds ? 0 : 1;
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    console.error(`Cannot run the page as ${error.message}`);
    return 2;
  }
}

function parse(args: readonly string[]): Command {
  // Not strict, since its errors are several lines long and never say what was wanted.
  const { values: { group = "in-process", small, help, ...rest }, positionals } = parseArgs({
    args: [...args],
    options: { group: { type: "string" }, small: { type: "boolean" }, help: { type: "boolean" } },
    strict: false,
  });
  const [unknown] = [...Object.keys(rest).map((name) => `--${name}`), ...positionals];
  if (unknown !== undefined) throw wrong(`flags are --group, --small and --help`, unknown);
  if (!isGroup(group)) throw wrong("--group must be in-process, workers or mpi", group);
  for (const [name, value] of Object.entries({ small, help })) {
    if (typeof value === "string") throw wrong(`--${name} takes no value`, value);
  }
  const shape = small ? [4, 100, 3, 2, 2] : [20, 100, 35, 45, 10];
  return { group, shape, help: help !== undefined };
}

function wrong(reason: string, value: unknown): StartError {
  const current = typeof value === "string" ? JSON.stringify(value) : "none";
  return new StartError(`${reason}: current value is ${current} (see --help)`);
}

function isGroup(name: unknown): name is keyof typeof RUNNERS {
  return typeof name === "string" && Object.hasOwn(RUNNERS, name);
}

if (import.meta.main) Deno.exit(await main(Deno.args));
