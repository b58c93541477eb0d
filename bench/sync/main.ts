/**
 * `deno task bench:sync`: what synchronizing adds to a training step of a ResNet-50's 53 batch norms on the Wasm device.
 *
 * `deno task bench:sync [--machine "an AMD EPYC"] [--quick] [--write]`; with `--write` the table goes to bench/README.md.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { replaceSection } from "../groups/scale.ts";
import { measureSync } from "./measure.ts";
import { MARKERS, section } from "./section.ts";

const { values } = parseArgs({
  options: {
    machine: { type: "string", default: "a processor that nobody named" },
    quick: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const options = values.quick
  ? { batch: 2, rounds: 1, image: 64 }
  : { batch: 8, rounds: 9, image: 224 };
const { os, arch } = Deno.build;
const cores = `${navigator.hardwareConcurrency} cores of ${values.machine}`;
const text = section({
  ...await measureSync(options),
  options,
  machine: `${os} ${arch}, ${cores}, Deno ${Deno.version.deno}`,
  date: new Date().toISOString().slice(0, 10),
});
console.log(text);
if (values.write) {
  const page = new URL("../README.md", import.meta.url);
  await Deno.writeTextFile(page, replaceSection(await Deno.readTextFile(page), text, MARKERS));
}
