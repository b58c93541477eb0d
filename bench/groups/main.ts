/** `deno task bench:groups`: the process groups, their peers, and what synchronising adds to a training step. */

import { commandLine, integer } from "../command.ts";
import { assertWritable, captionOf, NOBODY, writeSection } from "../report.ts";
import { writeScale } from "../scale.ts";
import { measureEngines, measureFolds } from "./engines.ts";
import type { Measured } from "./measured.ts";
import { measurePeers } from "./peers.ts";
import { groupsSection } from "./section.ts";
import { measureSteps } from "./training.ts";

const HELP = `\
Times all-reduces of workers and of MPI against MPI itself in C and mpi4py, and training steps, on a
machine that should have nothing else to do.

Usage: deno task bench:groups [flags] [RANKS...]

  RANKS            numbers of ranks (2 4)
  --machine NAME   what the processor is called
  --python PATH    a Python that may have mpi4py and numpy (python3)
  --quick          one short round of everything
  --write          write groups/measured.json, its section of bench/README.md, and bench/scale.md`;

const { has, value, positionals } = commandLine(HELP);
const [quick, write] = [has("quick"), has("write")];
const worlds = positionals.length > 0
  ? positionals.map((ranks) => integer("RANKS", ranks))
  : [2, 4];
const effort = quick ? { rounds: 1, milliseconds: 1 } : { rounds: 9, milliseconds: 20 };
if (write) await assertWritable("groups");

const folds = await measureFolds();
const peers = await measurePeers(worlds, effort, value("python", "python3"));
const engines = await measureEngines(worlds, effort);
const length = quick ? { steps: 10, rounds: 1 } : { steps: 100, rounds: 5 };
const training = await measureSteps(2, { batch: 8, ...length });
const measured: Measured = {
  ...captionOf(value("machine", NOBODY)),
  versions: [`Deno ${Deno.version.deno}`, ...peers.libraries],
  rows: [...engines.rows, ...peers.rows, ...folds],
  missing: [...engines.missing, ...peers.missing, ...training.missing],
  steps: training.steps,
};
const text = groupsSection(measured);
console.log(text);
if (write) {
  const file = new URL("measured.json", import.meta.url);
  await Deno.writeTextFile(file, `${JSON.stringify(measured, null, 2)}\n`);
  await writeSection("groups", text);
  await writeScale(measured);
}
