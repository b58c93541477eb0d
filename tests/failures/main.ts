/**
 * The failure report: `deno task failures --times 50`, and the soak: `deno task failures --soak 1000000`. It may do
 * anything, as it looks in /proc for processes and threads that were left behind.
 */

import { parseArgs } from "node:util";
import { type Circumstance, circumstances } from "./circumstances.ts";
import { isClean, type Line, provoke, table } from "./report.ts";
import type { Subject } from "./subject.ts";
import { mpiSubjects } from "./mpi.ts";
import { workerSubjects } from "./workers.ts";

const USAGE = `deno task failures [--times N] [--soak N] [--engine TEXT]
  --times N      how often each failure happens to each engine (0: never)
  --soak N       how many small all-reduces on two ranks of each engine (0: none)
  --engine TEXT  only engines whose names have it`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      times: { type: "string", default: "50" },
      soak: { type: "string", default: "0" },
      engine: { type: "string", default: "" },
      help: { type: "boolean" },
    },
  });
  const [times, soak] = [Number(values.times), Number(values.soak)];
  if (values.help || !Number.isInteger(times) || !Number.isInteger(soak)) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  const isMeant = (name: string) => name.toLowerCase().includes(values.engine.toLowerCase());
  const subjects = [...workerSubjects, ...await mpiSubjects()].filter(({ name }) => isMeant(name));
  const others = (await circumstances()).filter(({ subject }) => isMeant(subject));
  let clean = subjects.length + others.length > 0;
  if (times > 0) clean = await fail(subjects, others, times) && clean;
  if (soak > 0) clean = await soakAll(subjects, soak) && clean;
  return clean ? 0 : 1;
}

async function fail(
  subjects: readonly Subject[],
  others: readonly Circumstance[],
  times: number,
): Promise<boolean> {
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
  for (const { subject, happen } of others) {
    lines.push(await happen(times));
    console.error(`${subject}: ${lines.at(-1)?.kind}`);
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

Deno.exit(await main());
