/** `deno task bench` and `deno task bench:gpu`: checks every row, measures it, and prints tables for README.md. */

import { titleOf } from "./batches.ts";
import { type Costs, launchCosts, waitCosts } from "./latency.ts";
import { workTimes } from "./measure.ts";
import { rowsOf, type Subject } from "./rows.ts";
import { referenceSubject, webgpuCandidates, type WebGpuSubject } from "./subjects.ts";

const SOFTWARE = "Software adapter: only the host's costs mean something.";

/** Prints a table in Markdown. */
function print(lines: readonly (readonly string[])[]): void {
  const [head] = lines;
  const row = (cells: readonly string[]) => console.log(`| ${cells.join(" | ")} |`);
  row(head);
  row(head.map(() => "---"));
  lines.slice(1).forEach(row);
  console.log();
}

/** Prints a line per shape: ms, GB/s and the share of the plain copy's GB/s. */
async function printWork<A>(title: string, subject: Subject<A>, note = ""): Promise<void> {
  console.log(`## ${title}\n`);
  if (note) console.log(`**${note}**\n`);
  const lines: string[][] = [];
  for (const shape of subject.shapes) {
    using measured = rowsOf(subject, shape);
    const { rows } = measured;
    for (const { check } of rows) await check();
    const times = await workTimes(rows, subject.rounds);
    const speeds = rows.map(({ bytes }, i) => bytes / times[i] / 1e6);
    const cells = speeds.map((speed, i) => {
      const share = i === 0 ? "" : `, ${(100 * speed / speeds[0]).toFixed(0)} %`;
      return `${times[i].toFixed(3)} (${speed.toFixed(1)}${share})`;
    });
    if (lines.length === 0) lines.push(["shape", ...rows.map(({ name }) => name)]);
    lines.push([titleOf(shape), ...cells]);
  }
  print(lines);
}

/** Prints a line per cost and a column per implementation. */
async function printCosts(
  title: string,
  subjects: readonly WebGpuSubject[],
  measure: (subject: WebGpuSubject) => Promise<Costs>,
): Promise<void> {
  const columns: Costs[] = [];
  for (const subject of subjects) columns.push(await measure(subject));
  if (columns.length === 0) return;
  const names = new Set(columns.flatMap((costs) => Object.keys(costs)));
  const cells = (name: string) => columns.map((costs) => costs[name]?.toFixed(3) ?? "");
  print([
    [title, ...subjects.map(({ implementation }) => implementation)],
    ...[...names].map((name) => [name, ...cells(name)]),
  ]);
}

const { deno, v8 } = Deno.version;
console.log(
  `Deno ${deno} (V8 ${v8}) on ${Deno.build.target}; medians in ms (GB/s, share of copy)\n`,
);
const reference = referenceSubject();
await printWork(reference.device.info.name, reference);

const candidates = await webgpuCandidates();
for (const candidate of candidates) {
  if ("missing" in candidate) {
    console.log(`${candidate.implementation} is not measured: ${candidate.missing}\n`);
  }
}
const subjects = candidates.flatMap((candidate) =>
  "subject" in candidate ? [candidate.subject] : []
);
await using stack = new AsyncDisposableStack();
for (const subject of subjects) stack.use(subject);

await printCosts("until the GPU has answered", subjects, waitCosts);
await printCosts("until a call returns", subjects, launchCosts);
for (const subject of subjects) {
  const { name, isFallbackAdapter } = subject.device.info;
  const note = isFallbackAdapter ? SOFTWARE : "";
  await printWork(`${name} by ${subject.implementation}`, subject, note);
}
