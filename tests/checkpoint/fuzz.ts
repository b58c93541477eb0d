/**
 * Damaged safetensors files: `deno task fuzz --cases 100000 --seed 2026`.
 *
 * A damaged file must be read, and then survive being written and read again; or be refused with a SafetensorsError of
 * a kind that is listed here. Anything else is a failure, and so is a file that takes long.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { integer, type Program } from "../../examples/command_line.ts";
import { runProgram } from "../../examples/run_program.ts";
import {
  readSafetensors,
  type Safetensors,
  SafetensorsError,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import { uniforms } from "../random.ts";
import { dicts } from "./dicts.ts";
import { type Draw, MUTATIONS } from "./mutations.ts";
import { assertSame, goldens } from "./safetensors_bytes.ts";

/** What a message says of each reason for which a file is refused, in the order in which they are tried. */
export const REFUSALS: Readonly<Record<string, RegExp>> = {
  "fewer than 8 bytes": /as it must begin with 8 bytes/,
  "header over the limit": /as its header must have at most 100000000 bytes/,
  "header beyond the file": /as its header of \d+ bytes must lie within it/,
  "no brace": /as its header must begin with "{"/,
  "not UTF-8": /as its header must be UTF-8/,
  "text after the object": /as nothing but white space must follow the header's object/,
  "no object": /as (tensor ".*"|the metadata) must be an object/,
  "no string": / must be a string: /,
  "no list": / must be a list: /,
  "no comma": /as "," or "[}\]]" must come next in /,
  "no colon": /as ":" must follow a name in /,
  "no end of a string": / must end with a quote/,
  "bare control character": / must have its control characters escaped/,
  "unknown escape": / must have no other escapes than JSON's/,
  "lone surrogate": / must have no lone surrogate/,
  "no integer": / must have integers from 0 to 2\^53 - 1, in plain digits/,
  "a tensor twice": /as names in the header must differ: current value is (?!"__metadata__")/,
  "metadata twice": /as names in the header must differ: current value is "__metadata__"/,
  "a field twice": /as names in tensor ".*" must differ/,
  "a name of metadata twice": /as names in the metadata must differ/,
  "unknown field": / must have no fields but dtype, shape and data_offsets/,
  "missing field": / must have the fields dtype, shape and data_offsets/,
  "unknown dtype": /as the dtype of tensor ".*" must be one of /,
  "too many elements":
    /as the extents of tensor ".*" that are not 0 must have a product below 2\^53/,
  "offsets out of order":
    /as the data_offsets of tensor ".*" must be where its data begin and where they end/,
  "other number of bytes": /as tensor ".*", [A-Z0-9_]+ of shape \(.*\), must have [\d.]+ bytes/,
  "beyond the data": /as tensor ".*" must end within the \d+ bytes of data/,
  "not from 0": /as the data of tensor ".*", the first, must begin at 0/,
  "overlap": /as tensor ".*" must not overlap tensor /,
  "hole": /as tensor ".*" must begin at \d+, where the data of tensor /,
  "bytes after the last": /as the tensors must cover all data/,
};

/** What became of the damaged files. */
export interface Counts {
  readonly cases: number;
  /** Files that were read all the same. */
  readonly read: number;
  /** Files that were refused, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  /** Milliseconds that the slowest took to be read or refused. */
  readonly slowest: number;
}

/** Milliseconds for one file of at most 10 kB; a thousand times what it takes, for the sake of shared machines. */
const LONGEST = 200;

/**
 * Damages files and reads them; files and damage come from the seed alone.
 *
 * @throws Error that tells which case fails, with the file
 */
export function fuzz({ cases, seed }: { readonly cases: number; readonly seed: number }): Counts {
  const uniform = uniforms(seed);
  const draw: Draw = (below) => Math.floor(uniform() * below);
  const files = [
    ...goldens().map(({ bytes }) => bytes),
    ...fc.sample(dicts, { numRuns: 100, seed }).map((dict) => write(dict)),
  ].filter(({ length }) => length < 5000);
  const refused = Object.fromEntries(Object.keys(REFUSALS).map((reason) => [reason, 0]));
  let [read, slowest] = [0, 0];
  for (let at = 0; at < cases; at++) {
    const { file, steps } = damaged(files, draw);
    try {
      const { outcome, milliseconds } = judge(file);
      if (outcome === "read") read++;
      else refused[outcome]++;
      slowest = Math.max(slowest, milliseconds);
    } catch (cause) {
      const hex = Array.from(file, (byte) => byte.toString(16).padStart(2, "0")).join("");
      const what = `case ${at} of seed ${seed} (${steps.join(", ")})`;
      throw new Error(`Cannot go on as ${what} fails: current file is ${hex}`, { cause });
    }
  }
  return { cases, read, refused, slowest };
}

function write({ tensors, metadata }: Safetensors): Uint8Array<ArrayBuffer> {
  return writeSafetensors(tensors, metadata);
}

/** A file after one to three mutations. */
function damaged(files: readonly Uint8Array[], draw: Draw) {
  const names = Object.keys(MUTATIONS);
  const steps = Array.from({ length: 1 + draw(3) }, () => names[draw(names.length)]);
  let file = files[draw(files.length)];
  for (const step of steps) file = MUTATIONS[step](file, files[draw(files.length)], draw);
  return { file, steps };
}

/** Reads a file, and says why it was refused or that it was read. */
function judge(file: Uint8Array): { readonly outcome: string; readonly milliseconds: number } {
  const before = file.slice();
  let milliseconds = Infinity;
  let result: Safetensors | SafetensorsError | undefined;
  // What is slow by itself is slow three times; what another process held up is not.
  for (let times = 0; times < 3 && !(milliseconds < LONGEST); times++) {
    const start = performance.now();
    result = attempt(file);
    milliseconds = performance.now() - start;
  }
  assert(milliseconds < LONGEST, `it took ${milliseconds} ms`);
  assert.equal(result === undefined, false);
  assert(isEqual(file, before), "the file was changed");
  const outcome = result instanceof SafetensorsError
    ? reasonOf(result, file.length)
    : survives(result as Safetensors);
  return { outcome, milliseconds };
}

function attempt(file: Uint8Array): Safetensors | SafetensorsError {
  try {
    return readSafetensors(file);
  } catch (error) {
    if (error instanceof SafetensorsError) return error;
    throw error;
  }
}

function reasonOf({ message, code, byte }: SafetensorsError, length: number): string {
  const found = Object.entries(REFUSALS).find(([, says]) => says.test(message));
  assert(found !== undefined, `no such refusal is known: ${message}`);
  assert.equal(code, found[0] === "unknown dtype" ? "unsupported" : "malformed");
  assert(Number.isInteger(byte) && byte >= 0 && byte <= length, `byte ${byte} of ${length}`);
  assert(message.endsWith(`, at byte ${byte}`), message);
  return found[0];
}

function survives(result: Safetensors): "read" {
  const written = write(result);
  const again = readSafetensors(written);
  assertSame(again, result);
  assert(isEqual(write(again), written), "the same tensors were written in two ways");
  return "read";
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** What the flags say. */
interface FuzzFlags {
  readonly cases: number;
  readonly seed: number;
}

const FUZZ: Program<FuzzFlags> = {
  usage: "deno task fuzz",
  action: "damage files",
  about: `\
Damages safetensors files and reads them: each must be refused with a reason that is known, or be
read, and then survive being written and read again. In memory alone.`,
  flags: {
    cases: integer({
      ...{ from: 1, to: 2 ** 31 - 1, usual: 100_000 },
      help: "how many files",
    }),
    seed: integer({
      ...{ from: 0, to: 2 ** 31 - 1, usual: 2026 },
      help: "where files and damage come from",
    }),
  },
  notes: "Exits with 1 and the file if one fails, with 2 for a wrong flag or without a permission.",
};

function main({ cases, seed }: FuzzFlags): number {
  const start = performance.now();
  try {
    const { read, refused, slowest } = fuzz({ cases, seed });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    for (const [reason, count] of [["read", read] as const, ...Object.entries(refused)]) {
      console.log(`${String(count).padStart(9)} ${reason}`);
    }
    console.log(
      `${cases} damaged files in ${seconds} s, seed ${seed}: ${read} read, ${
        cases - read
      } refused, ` +
        `the slowest in ${slowest.toFixed(1)} ms, no failure`,
    );
    return 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    console.error(error);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await runProgram(FUZZ, Deno.args, main));
