/**
 * `deno task pytorch`: the examples of PyTorch's page of SyncBatchNorm, and what they show.
 *
 * @module
 */

import { on, oneOf, type Program } from "../command_line.ts";
import { runProgram } from "../run_program.ts";
import { type GroupName, RUNNERS } from "./groups.ts";
import { report } from "./report.ts";

/** What the flags say. */
export interface PytorchFlags {
  readonly group: GroupName;
  readonly small: boolean;
}

/** What its command line is. */
export const PYTORCH: Program<PytorchFlags> = {
  usage: "deno task pytorch",
  action: "run the examples",
  about:
    "Runs the two examples of PyTorch's page of SyncBatchNorm, and compares what came of them.",
  flags: {
    group: oneOf(["in-process", "workers", "mpi"], {
      usual: "in-process",
      help: "in-process, workers or mpi: ranks are 4 tasks of one thread, 4 threads, or the " +
        "processes of your mpirun",
    }),
    small: on(
      "an input of shape (4, 100, 3, 2, 2) on each rank instead of the page's " +
        "(20, 100, 35, 45, 10), which takes a quarter of a minute and 2 GB",
    ),
  },
  notes: `\
Exits with 1 if the ranks do not learn what fewer processes learn, and with 2 for a wrong flag or if
a permission or MPI is not there.`,
};

/** Runs the examples and returns the exit code. */
async function main({ group, small }: PytorchFlags): Promise<number> {
  const shape = small ? [4, 100, 3, 2, 2] : [20, 100, 35, 45, 10];
  const shown = await RUNNERS[group](shape);
  if (shown === null) return 0;
  const { text, holds } = await report(shown, shape);
  console.log(text);
  return holds ? 0 : 1;
}

if (import.meta.main) Deno.exit(await runProgram(PYTORCH, Deno.args, main));
