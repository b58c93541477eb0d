/**
 * `deno task bench:peers`: ours on Wasm against other libraries and against C, in rounds, on a machine that should have
 * nothing else to do. Everybody is checked against float64 first. On first use it installs the peers that come from npm
 * into an ignored folder; they are pinned, and nothing else uses them.
 *
 * ```sh
 * deno task bench:peers [--python PATH] [--machine NAME] [--write] [--quick ROUNDS] [--no-install] [--reproducible] [SHAPE...]
 * ```
 *
 * - `--python`: a Python that has PyTorch; `python3` by default
 * - `--write`: what it prints goes to bench/README.md, and a chart of it to `peers.svg`
 * - `--quick`: so many rounds, short turns, and none of the largest batches
 * - `--no-install`: peers that are not installed are left out
 * - `--reproducible`: a row more of ours, without fused multiply-add
 * - SHAPE: only these, as the tables write them, such as `[256,128]`
 *
 * @module
 */

import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { elementsOf, titleOf } from "../batches.ts";
import { replaceSection } from "../groups/scale.ts";
import { CASES, numberSource } from "./cases.ts";
import { chart } from "./chart.ts";
import { jaxSubject } from "./jax.ts";
import { limitSubject } from "./limit.ts";
import { type Measured, OURS, REPRODUCIBLE } from "./measured.ts";
import { KINDS, onnxruntimeSubject } from "./onnxruntime.ts";
import { ourSubject } from "./ours.ts";
import { openPackages } from "./packages.ts";
import { type Effort, measureCase, type Measurement } from "./rounds.ts";
import { MARKERS, section, summary } from "./section.ts";
import type { Absent, Candidate, Subject } from "./subject.ts";
import { tfjsSubject } from "./tfjs.ts";
import { torchSubject } from "./torch.ts";

const THREADS = [1, 2] as const;
/** Compiled and bundled things; ignored by git. */
const BUILT = new URL("../../out/peers/", import.meta.url);
const README = new URL("../README.md", import.meta.url);
/** Elements from which a batch takes fewer rounds. */
const LARGE = 5e7;
/** Elements from which a batch has no place in a quick run. */
const QUICK = 8e6;
const ROUNDS = 15;
const LARGE_ROUNDS = 3;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    machine: { type: "string" },
    write: { type: "boolean", default: false },
    quick: { type: "string" },
    "no-install": { type: "boolean", default: false },
    reproducible: { type: "boolean", default: false },
  },
});
const quick = values.quick === undefined ? null : Number(values.quick);
if (quick !== null && !(Number.isInteger(quick) && quick > 0)) {
  throw new RangeError(
    `Cannot measure as --quick must be a number of rounds: current value is ${values.quick}`,
  );
}
const cases = CASES
  .filter((shape) => positionals.length === 0 || positionals.includes(`[${shape.shape}]`))
  .filter((shape) => quick === null || elementsOf(shape) < QUICK);
if (cases.length === 0) {
  // Most shapes stand there in both memory orders.
  const names = new Set(CASES.map(({ shape }) => `[${shape}]`));
  throw new RangeError(
    `Cannot measure as the shapes must be among ${[...names].join(" ")}: ` +
      `current value is ${positionals}`,
  );
}

// Better now than after a quarter of an hour.
if (values.write) replaceSection(await Deno.readTextFile(README), "", MARKERS);

/** The processor by its own words. */
function processor(): string {
  return cpus()[0]?.model.trim() || "a processor that nobody named";
}

async function candidates(): Promise<Candidate[]> {
  const packages = await openPackages({ install: !values["no-install"] });
  const ours = THREADS.flatMap((threads) => [
    ourSubject(OURS, threads, () => wasmDevice({ threads })),
    ...(values.reproducible
      ? [
        ourSubject(
          REPRODUCIBLE,
          threads,
          () => wasmDevice({ threads, arithmetic: "reproducible" }),
        ),
      ]
      : []),
  ]);
  return [
    ...ours,
    await limitSubject({ folder: BUILT, threads: THREADS }),
    await limitSubject({ folder: BUILT, threads: THREADS, narrow: true }),
    await torchSubject({ python: values.python, threads: THREADS }),
    ...THREADS.flatMap((threads) =>
      KINDS.map((kind) => onnxruntimeSubject(packages, { kind, threads }))
    ),
    await jaxSubject(packages, 1),
    await jaxSubject(packages, 2),
    await tfjsSubject(packages, { folder: BUILT }),
  ];
}

const all = await candidates();
const subjects = all.filter((one): one is Subject => "open" in one);
const absent = all.filter((one): one is Absent => "missing" in one);
for (const { name, missing } of absent) console.error(`${name} is not measured: ${missing}`);
const measurements: Measurement[] = [];
{
  await using stack = new AsyncDisposableStack();
  for (const subject of subjects) stack.use(subject);
  const numbersOf = numberSource();
  for (const [i, shape] of cases.entries()) {
    const start = performance.now();
    const large = elementsOf(shape) >= LARGE;
    const effort: Effort = quick !== null
      ? { rounds: quick, turn: 1, warmUp: 5 }
      : { rounds: large ? LARGE_ROUNDS : ROUNDS, turn: 10, warmUp: 150 };
    const measurement = await measureCase(
      subjects,
      shape,
      (mean) => numbersOf(shape, mean),
      effort,
    );
    measurements.push(measurement);
    const seconds = ((performance.now() - start) / 1e3).toFixed(1);
    console.error(`${i + 1} of ${cases.length}: ${titleOf(shape)}, ${seconds} s`);
    for (const { name, threads, missing } of measurement.absent) {
      console.error(`  ${name} (${threads}) is not measured: ${missing}`);
    }
  }
}

const { os, arch } = Deno.build;
const machine = values.machine ?? processor();
const versions = subjects.map(({ version }) => version).filter((version) =>
  version !== OURS && version !== REPRODUCIBLE
);
const measured: Measured = {
  date: new Date().toISOString().slice(0, 10),
  machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores of ${machine}`,
  versions: [`Deno ${Deno.version.deno}`, `V8 ${Deno.version.v8}`, ...new Set(versions)],
  rounds: quick ?? ROUNDS,
  cases: measurements,
  absent,
};
const text = section(measured);
console.log(text);
console.error(summary(measured));
if (values.write) {
  const page = await Deno.readTextFile(README); // Somebody may have written to it meanwhile.
  await Deno.writeTextFile(README, replaceSection(page, text, MARKERS));
  await Deno.writeTextFile(new URL("peers.svg", import.meta.url), chart(measured));
}
Deno.exit(); // Workers of the peers would keep the process alive.
