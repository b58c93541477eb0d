/**
 * `deno task bench:peers`: ours on Wasm against other libraries and against C, in rounds. Everybody is checked against float64
 * first. The peers that come from npm are pinned, installed into an ignored folder on first use, and used by nothing else.
 */

import { cpus } from "node:os";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { elementsOf, titleOf } from "../batches.ts";
import { chosen, commandLine, integer } from "../command.ts";
import { assertWritable, captionOf, NOBODY, writeSection } from "../report.ts";
import { CASES } from "./cases.ts";
import { jaxOnWasm } from "./jax.ts";
import { limitSubject } from "./limit.ts";
import { type Measured, OURS } from "./measured.ts";
import { KINDS, onnxruntime } from "./onnxruntime.ts";
import { ourSubject } from "./ours.ts";
import { openPackages } from "./packages.ts";
import { type Effort, measureCase, type Measurement } from "./rounds.ts";
import { peersChart, peersSection, timesChart } from "./section.ts";
import { type Absent, type Candidate, inProcess, type Subject } from "./subject.ts";
import { tfjs } from "./tfjs.ts";
import { torchSubject } from "./torch.ts";

const THREADS = [1, 2] as const;
/** Compiled and bundled things; ignored by git. */
const BUILT = new URL("../../out/peers/", import.meta.url);
/** Elements from which a batch takes fewer rounds. */
const LARGE = 5e7;
/** Elements from which a batch has no place in a quick run. */
const QUICK = 8e6;
const ROUNDS = 15;
const LARGE_ROUNDS = 3;

const HELP = `\
Times batch norm on Wasm against other libraries and C, on a machine that should have nothing else
to do. On first use it installs the peers from npm into bench/peers/npm/node_modules; what it compiles
and bundles goes to out/peers. git ignores both.

Usage: deno task bench:peers [flags] [SHAPE...]

  SHAPE             only these, as the tables write them, such as [256,128]
  --python PATH     a Python that has PyTorch (python3)
  --machine NAME    what the processor is called
  --quick N         so many rounds, short turns, and none of the largest batches
  --no-install      peers that are not installed are left out
  --write           write the section of bench/README.md, peers.svg and times.svg`;

const { has, value, positionals } = commandLine(HELP);
const given = value("quick", "no");
const quick = given === "no" ? null : integer("--quick", given);
const cases = chosen(
  CASES.filter((shape) => quick === null || elementsOf(shape) < QUICK),
  positionals,
  ({ shape }) => shape,
);

if (has("write")) await assertWritable("peers");

const packages = await openPackages({ install: !has("no-install") });
const all: Candidate[] = [
  ...THREADS.map((threads) => ourSubject(OURS, threads, () => wasmDevice({ threads }))),
  await limitSubject({ folder: BUILT, threads: THREADS }),
  await limitSubject({ folder: BUILT, threads: THREADS, narrow: true }),
  await torchSubject(value("python", "python3"), THREADS),
  ...[
    ...await Promise.all(
      THREADS.flatMap((threads) => KINDS.map((kind) => onnxruntime(packages, kind, threads))),
    ),
    await jaxOnWasm(packages, 1),
    await jaxOnWasm(packages, 2),
    await tfjs(packages, "wasm", BUILT),
  ].map((one) => "missing" in one ? one : inProcess(one)),
];
const subjects = all.filter((one): one is Subject => "open" in one);
const absent = all.filter((one): one is Absent => "missing" in one);
for (const { name, missing } of absent) console.error(`${name} is not measured: ${missing}`);
const measurements: Measurement[] = [];
{
  await using stack = new AsyncDisposableStack();
  for (const subject of subjects) stack.use(subject);
  for (const [i, shape] of cases.entries()) {
    const start = performance.now();
    const large = elementsOf(shape) >= LARGE;
    const effort: Effort = quick !== null
      ? { rounds: quick, turn: 1, warmUp: 5 }
      : { rounds: large ? LARGE_ROUNDS : ROUNDS, turn: 10, warmUp: 150 };
    const measurement = await measureCase(subjects, shape, effort);
    measurements.push(measurement);
    const seconds = ((performance.now() - start) / 1e3).toFixed(1);
    console.error(`${i + 1} of ${cases.length}: ${titleOf(shape)}, ${seconds} s`);
    for (const { name, threads, missing } of measurement.absent) {
      console.error(`  ${name} (${threads}) is not measured: ${missing}`);
    }
  }
}

const processor = cpus()[0]?.model.trim() || NOBODY;
const versions = subjects.map(({ version }) => version).filter((version) => version !== OURS);
const measured: Measured = {
  ...captionOf(value("machine", processor)),
  versions: [`Deno ${Deno.version.deno}`, `V8 ${Deno.version.v8}`, ...new Set(versions)],
  rounds: quick ?? ROUNDS,
  cases: measurements,
  absent,
};
const text = peersSection(measured);
console.log(text);
if (has("write")) {
  await writeSection("peers", text);
  await Deno.writeTextFile(new URL("peers.svg", import.meta.url), peersChart(measured));
  await Deno.writeTextFile(new URL("times.svg", import.meta.url), timesChart(measured));
}
Deno.exit(); // Workers of the peers would keep the process alive.
