/**
 * Random state dicts. As a program it writes files for golden/verify.py:
 * `deno run --allow-write=FOLDER tests/checkpoint/dicts.ts FOLDER --files 200 --seed 2026`.
 */

import fc from "fast-check";
import { integer, type Program } from "../../examples/command_line.ts";
import { runProgram } from "../../examples/run_program.ts";
import { type Safetensors, type StoredArray, writeSafetensors } from "../../lib/checkpoint.ts";
import { describe } from "./safetensors_bytes.ts";

const CLASSES = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

/** Any code point, astral ones too, but no half of a pair; fast-check's own "binary" takes seconds to be made. */
export const codePoints: fc.Arbitrary<string> = fc.integer({ min: 0, max: 0x10f7ff })
  .map((at) => String.fromCodePoint(at < 0xd800 ? at : at + 0x800));

const names = fc.oneof(
  fc.stringMatching(/^[a-z]{1,8}(\.[0-9]{1,2})?\.(weight|bias|running_mean|num_batches_tracked)$/),
  fc.string({ unit: codePoints, maxLength: 12 }),
  fc.constantFrom(
    "",
    "__proto__",
    "constructor",
    "toString",
    "10",
    "9",
    '"',
    "\\",
    "\0\t\x7f\u2028",
  ),
).filter((name) => name !== "__metadata__");

const shapes: fc.Arbitrary<readonly number[]> = fc.oneof(
  { weight: 9, arbitrary: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom([0, 2 ** 40], [2 ** 31, 0, 1], [257], [1, 1, 1, 1, 1, 1]),
  },
);

const arrays: fc.Arbitrary<StoredArray> = fc.record({
  dtype: fc.constantFrom(...Object.keys(CLASSES) as (keyof typeof CLASSES)[]),
  shape: shapes,
}).chain(({ dtype, shape }) => {
  const count = shape.reduce((product, extent) => product * extent, 1);
  const size = CLASSES[dtype].BYTES_PER_ELEMENT;
  // One element before and one behind it in the same buffer, which must not get into the file.
  const length = (count + 2) * size;
  return fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) =>
    ({ dtype, shape, data: new CLASSES[dtype](bytes.slice().buffer, size, count) }) as StoredArray
  );
});

/** Tensors of every dtype with names of every kind, any bits as elements, and metadata. */
export const dicts: fc.Arbitrary<Safetensors> = fc.record({
  tensors: fc.array(fc.tuple(names, arrays), { maxLength: 8 }).map((pairs) => new Map(pairs)),
  metadata: fc.array(fc.tuple(names, fc.string({ unit: codePoints })), { maxLength: 3 })
    .map((pairs) => new Map(pairs)),
});

/** What the flags say. */
interface DictFlags {
  readonly files: number;
  readonly seed: number;
}

const DICTS: Program<DictFlags> = {
  usage: "deno run --allow-write=FOLDER tests/checkpoint/dicts.ts",
  action: "write state dicts",
  about: "Writes random safetensors files, and JSON that says what is in them.",
  operands: { takes: "FOLDER", help: "where to, a folder that is there", least: 1, most: 1 },
  flags: {
    files: integer({ from: 1, to: 9999, usual: 200, help: "how many" }),
    seed: integer({ from: 0, to: 2 ** 31 - 1, usual: 2026, help: "what to draw them from" }),
  },
};

function main({ files, seed }: DictFlags, [folder]: readonly string[]): number {
  const drawn = fc.sample(dicts, { numRuns: files, seed });
  for (const [at, { tensors, metadata }] of drawn.entries()) {
    const path = `${folder}/${String(at).padStart(4, "0")}`;
    Deno.writeFileSync(`${path}.safetensors`, writeSafetensors(tensors, metadata));
    const described = {
      metadata: Array.from(metadata, ([name, text]) => ({ name, text })),
      tensors: Array.from(tensors, ([name, array]) => describe(name, array)),
    };
    Deno.writeTextFileSync(`${path}.json`, JSON.stringify(described));
  }
  console.log(`${drawn.length} files in ${folder}, seed ${seed}`);
  return 0;
}

if (import.meta.main) Deno.exit(await runProgram(DICTS, Deno.args, main));
