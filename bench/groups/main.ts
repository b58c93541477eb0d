/**
 * `deno task bench:groups`: measures the process groups, their peers, and what synchronising adds to a training step, on
 * a machine that should have nothing else to do. With `--write` the numbers go to `measured.json`, and all that is
 * made of them to bench/README.md and the chart.
 *
 * `deno task bench:groups [--machine "an AMD EPYC"] [--python PATH] [--quick] [--write] [RANKS...]`
 *
 * @module
 */

import { parseArgs } from "node:util";
import { measureEngines } from "./engines.ts";
import { AGREEMENT_LENGTH, groupsSection } from "./groups_section.ts";
import { type Measured, measureFolds } from "./measured.ts";
import { LENGTHS, measurePeers } from "./peers.ts";
import { drawing, replaceSection, SECTIONS } from "./scale.ts";
import { section } from "./scale_section.ts";
import { measureSteps } from "./training.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    machine: { type: "string", default: "a processor that nobody named" },
    python: { type: "string" },
    quick: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const ranks = positionals.length > 0 ? positionals.map(Number) : [2, 4];
const effort = values.quick ? { rounds: 1, milliseconds: 1 } : {};

const folds = await measureFolds(LENGTHS);
const peers = await measurePeers({ ranks, lengths: LENGTHS, python: values.python, ...effort });
const lengths = [AGREEMENT_LENGTH, ...LENGTHS];
const engines = await measureEngines({ ranks, lengths, ...effort });
const training = await measureSteps({
  ...{ ranks: 2, batch: 8 },
  ...(values.quick ? { steps: 10, rounds: 1 } : { steps: 100, rounds: 5 }),
});

const { os, arch } = Deno.build;
const measured: Measured = {
  date: new Date().toISOString().slice(0, 10),
  machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores of ${values.machine}`,
  versions: [`Deno ${Deno.version.deno}`, ...peers.libraries],
  rows: [...engines.rows, ...peers.rows, ...folds],
  missing: [...engines.missing, ...peers.missing, ...training.missing],
  steps: training.steps,
};
const text = groupsSection(measured);
console.log(text);
if (values.write) {
  const at = (name: string) => new URL(name, import.meta.url);
  await Deno.writeTextFile(at("measured.json"), `${JSON.stringify(measured, null, 2)}\n`);
  const page = await Deno.readTextFile(at("../README.md"));
  const withGroups = replaceSection(page, text, SECTIONS.groups);
  await Deno.writeTextFile(at("../README.md"), replaceSection(withGroups, section(measured)));
  await Deno.writeTextFile(at("scale.svg"), drawing(measured));
}
