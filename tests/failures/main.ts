/**
 * The failure report: `deno task failures --times 50`, and the soak: `deno task failures --soak 1000000`. It may do
 * anything, as it looks in /proc for processes and threads that were left behind.
 */

import { integer, type Program, text } from "../../examples/command_line.ts";
import { runProgram } from "../../examples/run_program.ts";
import { startError } from "../../examples/start_error.ts";
import { isClean, type Line, provoke, table } from "./report.ts";
import type { Subject } from "./subject.ts";
import { mpiSubjects } from "./mpi.ts";
import { workerSubjects } from "./workers.ts";

/** What the flags say. */
interface FailureFlags {
  readonly times: number;
  readonly soak: number;
  /** Undefined for every engine. */
  readonly engine: string | undefined;
}

const FAILURES: Program<FailureFlags> = {
  usage: "deno task failures",
  action: "report failures",
  about: `\
Makes ranks fail in every way there is, on every engine of workers and processes that this machine
has, and reports what the others saw, how soon, and what was left behind. Linux alone.`,
  flags: {
    times: integer({
      ...{ from: 0, to: 1_000_000, usual: 50 },
      help: "how often each failure happens to each engine; 0 for never",
    }),
    soak: integer({
      ...{ from: 0, to: 2 ** 31 - 1, usual: 0 },
      help: "how many small all-reduces to make on two ranks of each engine",
    }),
    engine: text({
      ...{ takes: "TEXT", usual: undefined },
      help: "only engines whose names have it (all)",
    }),
  },
  notes: "Exits with 1 if anything is not as it must be, with 2 for a wrong flag.",
};

async function main({ times, soak, engine = "" }: FailureFlags): Promise<number> {
  const subjects = [...workerSubjects, ...await mpiSubjects()]
    .filter(({ name }) => name.toLowerCase().includes(engine.toLowerCase()));
  if (subjects.length === 0) {
    throw startError(`--engine must be part of an engine's name: current value is "${engine}"`);
  }
  let clean = true;
  if (times > 0) clean = await fail(subjects, times) && clean;
  if (soak > 0) clean = await soakAll(subjects, soak) && clean;
  return clean ? 0 : 1;
}

async function fail(subjects: readonly Subject[], times: number): Promise<boolean> {
  const lines: Line[] = [];
  for (const subject of subjects) {
    lines.push(
      ...await provoke(subject, times, undefined, (kind, done) => {
        if (done % 10 === 0 || done === times) {
          console.error(`${subject.name}: ${kind}, ${done} of ${times}`);
        }
      }),
    );
  }
  console.log(`\n${table(lines)}\n`);
  for (const { subject, kind, remarks } of lines.filter((line) => !isClean(line))) {
    console.log(`${subject}, ${kind}:\n  ${remarks.slice(0, 8).join("\n  ")}`);
  }
  return lines.every(isClean);
}

async function soakAll(subjects: readonly Subject[], times: number): Promise<boolean> {
  let clean = true;
  console.log(
    "\n| engine | all-reduces | wrong | seconds | memory after a tenth, MiB | at the end |\n" +
      "| --- | --: | --: | --: | --: | --: |",
  );
  for (const subject of subjects) {
    const { wrong, seconds, memory: [early, end] } = await subject.soak(times);
    // Flat: heaps of several threads breathe by tens of MiB; over a million calls a leak of 75 bytes a call is 64.
    clean &&= wrong === 0 && end - early < 64;
    console.log(
      `| ${subject.name} | ${times.toLocaleString("en")} | ${wrong} | ${seconds.toFixed(0)} | ` +
        `${early.toFixed(0)} | ${end.toFixed(0)} |`,
    );
  }
  return clean;
}

Deno.exit(await runProgram(FAILURES, Deno.args, main));
