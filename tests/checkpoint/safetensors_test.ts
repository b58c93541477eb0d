import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { initLayer, referenceDevice } from "../../mod.ts";
import {
  fromStateDict,
  readSafetensors,
  type StoredArray,
  toFloat32,
  toStateDict,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import { codePoints, dicts } from "./dicts.ts";
import { fuzz } from "./fuzz.ts";
import { assertSame, bytesOf, describe, fileOf, goldens } from "./safetensors_bytes.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

for (const { file, bytes, canonical, metadata, tensors } of goldens()) {
  Deno.test(`readSafetensors() reads Python's ${file} bit for bit`, () => {
    const read = readSafetensors(bytes);
    const found = Array.from(read.tensors, ([name, array]) => describe(name, array));
    const byName = (a: { name: string }, b: { name: string }) => a.name < b.name ? -1 : 1;
    assert.deepEqual(found.sort(byName), [...tensors].sort(byName));
    assert.deepEqual(
      Array.from(read.metadata, ([name, text]) => ({ name, text })).sort(byName),
      metadata,
    );
  });

  const same = canonical ? "the same bytes" : "a file that reads alike";
  Deno.test(`writeSafetensors() makes of Python's ${file} ${same}`, () => {
    const read = readSafetensors(bytes);
    const written = writeSafetensors(read.tensors, read.metadata);
    if (canonical) assert.deepEqual(written, bytes);
    else assertSame(readSafetensors(written), read);
  });
}

Deno.test("the golden files hold every dtype, shapes without elements and of no axes, and odd numbers", () => {
  const found = goldens().flatMap(({ tensors }) => tensors);
  assert.equal(new Set(found.map(({ dtype }) => dtype)).size, 8);
  assert(found.some(({ shape }) => shape === "") && found.some(({ shape }) => shape === "2x0x3"));
  const values = goldens().find(({ file }) => file === "values.safetensors")!;
  const { tensors } = readSafetensors(values.bytes);
  const [f64, f32] = [tensors.get("f64")!, tensors.get("f32")!];
  assert.deepEqual(
    [...(f64.data as Float64Array).subarray(0, 8)],
    [0, -0, 1.5, -2, 0.1, Infinity, -Infinity, NaN],
  );
  assert.deepEqual(
    f32.data.slice(-4),
    Float32Array.of(
      2 ** -149,
      (1 - 2 ** -23) * 2 ** -126,
      2 ** -126,
      (2 - 2 ** -23) * 2 ** 127,
    ),
  );
  assert.deepEqual(tensors.get("f16")?.data.slice(7, 10), Uint16Array.of(0x7e12, 0xfe12, 0x7c01));
  assert.deepEqual(tensors.get("bf16")?.data.slice(0, 3), Uint16Array.of(0, 0x8000, 0x3fc0));
  assert.deepEqual(
    tensors.get("i64")?.data,
    BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n, 2n ** 53n + 1n, -1n, 0n),
  );
  assert.deepEqual(tensors.get("i32")?.data, Int32Array.of(-(2 ** 31), 2 ** 31 - 1, 1));
  assert.deepEqual(tensors.get("bool")?.data, Uint8Array.of(1, 0, 0, 1, 1));
});

Deno.test("readSafetensors() gives tensors in the order of their data, empty ones in the header's", () => {
  const { bytes } = goldens().find(({ file }) => file === "by_hand.safetensors")!;
  const { tensors, metadata } = readSafetensors(bytes);
  assert.deepEqual([...tensors.keys()], ["first", "a/😀", "none.2", "none.1", "b", "c", "last"]);
  assert.deepEqual([...metadata], [["zwei", "2"], ["eins", "1"], ["", '"\t']]);
});

Deno.test("readSafetensors() gives back what writeSafetensors() was given, bit for bit", () => {
  fc.assert(
    fc.property(dicts, ({ tensors, metadata }) => {
      const before = Array.from(tensors, ([name, array]) => describe(name, array));
      const written = writeSafetensors(tensors, metadata);
      const copy = written.slice();
      assertSame(readSafetensors(written), { tensors, metadata });
      assert.deepEqual(written, copy);
      assert.deepEqual(Array.from(tensors, ([name, array]) => describe(name, array)), before);
    }),
    { numRuns: 500 },
  );
});

Deno.test("writeSafetensors() gives the same bytes whatever the order, for maps and for records", () => {
  fc.assert(
    fc.property(dicts, ({ tensors, metadata }) => {
      const written = writeSafetensors(tensors, metadata);
      const turned = writeSafetensors(
        new Map([...tensors].reverse()),
        new Map([...metadata].reverse()),
      );
      assert.deepEqual(turned, written);
      // fromEntries defines properties, "__proto__" too.
      const records = [Object.fromEntries(tensors), Object.fromEntries(metadata)] as const;
      assert.deepEqual(writeSafetensors(...records), written);
    }),
    { numRuns: 200 },
  );
});

Deno.test("writeSafetensors() puts wide elements first, names by code point, and pads with spaces", () => {
  const one = (dtype: string, data: unknown) => ({ dtype, shape: [1], data }) as StoredArray;
  const bytes = writeSafetensors(
    {
      "\u{1f600}": one("U8", Uint8Array.of(1)),
      "\uffff": one("U8", Uint8Array.of(2)),
      b: one("F32", Float32Array.of(0)),
      aa: one("F32", Float32Array.of(0)),
      a: one("F32", Float32Array.of(0)),
      10: one("I64", BigInt64Array.of(0n)),
    },
    { b: "1", a: "\u001f\u007f/" },
  );
  const header = text(bytes.subarray(8, -(8 + 12 + 2)));
  assert.deepEqual(
    header.match(/"(?:[^"\\]|\\.)*"(?=:\{"d)/g)?.map((name) => JSON.parse(name)),
    ["10", "a", "aa", "b", "\uffff", "\u{1f600}"],
  );
  assert(header.startsWith('{"__metadata__":{"a":"\\u001f\x7f/","b":"1"},"10":{"dtype":"I64",'));
  assert.match(header, /\}\} {0,7}$/);
  assert.equal(new TextEncoder().encode(header).length % 8, 0);
  assert.deepEqual(bytes.subarray(-2), Uint8Array.of(2, 1));
});

Deno.test("writeSafetensors() leaves metadata without entries out", () => {
  assert.deepEqual(writeSafetensors({}, {}), writeSafetensors({}));
  assert.equal(text(writeSafetensors(new Map()).subarray(8)), "{}      ");
});

Deno.test("readSafetensors() takes a view at any offset, and a Buffer, and gives arrays of their own", () => {
  const bytes = writeSafetensors({
    a: { dtype: "F64", shape: [2], data: Float64Array.of(1, 2) },
    b: { dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) },
  });
  const wanted = readSafetensors(bytes);
  for (let offset = 0; offset < 9; offset++) {
    for (const around of [new Uint8Array(bytes.length + 20), Buffer.alloc(bytes.length + 20)]) {
      around.fill(0xee);
      around.set(bytes, offset);
      const read = readSafetensors(around.subarray(offset, offset + bytes.length));
      around.fill(0);
      assertSame(read, wanted);
    }
  }
  const buffers = [...wanted.tensors.values()].map(({ data }) => data.buffer);
  assert.equal(new Set([...buffers, bytes.buffer]).size, 3);
  assert(buffers.every(({ byteLength }, at) => byteLength === [16, 3][at]));
});

Deno.test("readSafetensors() freezes the record, its arrays and their shapes", () => {
  const array = { dtype: "U8", shape: [1], data: Uint8Array.of(1) } as const;
  const read = readSafetensors(writeSafetensors({ array }));
  assert(Object.isFrozen(read) && Object.isFrozen(read.tensors.get("array")));
  assert(Object.isFrozen(read.tensors.get("array")?.shape));
});

Deno.test("readSafetensors() takes linear time for headers of many megabytes", () => {
  const entries = Array.from(
    { length: 50_000 },
    (_, at) => `"${at}":{"dtype":"F32","shape":[0,${at}],"data_offsets":[0,0]}`,
  );
  const long = "\\u0001 é".repeat(300_000);
  const texts = Array.from({ length: 100_000 }, (_, at) => `"${at}":""`);
  const file = fileOf(`{${entries},"__metadata__":{"long":"${long}",${texts}}}${" ".repeat(1e6)}`);
  assert(file.length > 7e6);
  const start = performance.now();
  const { tensors, metadata } = readSafetensors(file);
  // A second or less; were any step of it quadratic, hours.
  assert(performance.now() - start < 20_000);
  assert.deepEqual([tensors.size, metadata.size], [50_000, 100_001]);
  assert.equal(metadata.get("long"), "\u0001 é".repeat(300_000));
});

// The first of those that CI draws, as many as it takes for every refusal.
Deno.test("readSafetensors() reads or refuses 6,000 damaged files, and every refusal occurs", () => {
  const { cases, read, refused } = fuzz({ cases: 6_000, seed: 2026 });
  const missing = Object.keys(refused).filter((reason) => refused[reason] === 0);
  assert.deepEqual(missing, []);
  const all = Object.values(refused).reduce((sum, count) => sum + count, 0);
  assert(read > 300);
  assert.equal(read + all, cases);
});

Deno.test("readSafetensors() reads strings as JSON spells them, with every escape", () => {
  const all = fc.string({ unit: codePoints }).map((text) => {
    const units = Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));
    return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
  });
  const some = fc.string({ unit: codePoints }).map((text) => JSON.stringify(text).slice(1, -1));
  const short = fc.constantFrom('\\b\\f\\n\\r\\t\\/\\\\\\"', "\\uFFFF\\uE000\\uD7FF\\uABcd", "/");
  const spelled = fc.array(fc.oneof(all, some, short)).map((parts) => `"${parts.join("")}"`);
  fc.assert(fc.property(spelled, spelled, (name, text) => {
    const { metadata } = readSafetensors(fileOf(`{"__metadata__":{${name}:${text}}}`));
    assert.deepEqual([...metadata], [[JSON.parse(name), JSON.parse(text)]]);
  }));
});

Deno.test("readSafetensors() takes white space of every kind between tokens", () => {
  const entry = '{ "dtype" : "U8" , "shape" : [ 1 , 1 ] , "data_offsets" : [ 0 , 1 ] }';
  const header = `{ "a" : ${entry} , "__metadata__" : { "b" : "c d" } } `;
  // But for the one within a text.
  const spaced = (space: string) => header.replaceAll(/ (?!d)/g, space);
  for (const space of ["", " ", "\t", "\n", "\r", "\r\n\t "]) {
    const { tensors, metadata } = readSafetensors(fileOf(spaced(space), Uint8Array.of(7)));
    const a = { dtype: "U8", shape: [1, 1], data: Uint8Array.of(7) };
    assert.deepEqual([...tensors, ...metadata], [["a", a], ["b", "c d"]]);
  }
});

Deno.test("readSafetensors() reads elements as little-endian", () => {
  const file = fileOf(
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    Uint8Array.of(0, 0, 0xc0, 0x3f),
  );
  const array = readSafetensors(file).tensors.get("a")!;
  assert.deepEqual([...array.data], [1.5]);
  assert.deepEqual([...bytesOf(array)], [0, 0, 0xc0, 0x3f]);
});

Deno.test("tensors of dtypes that nothing here computes with come and go as bytes, the rest as ever", async () => {
  const opaque = {
    ...{ U64: 16, U32: 8, U16: 4, I16: 4, I8: 2, C64: 16, F8_E4M3: 2, F8_E5M2: 2, F8_E8M0: 2 },
    ...{ F8_E4M3FNUZ: 2, F8_E5M2FNUZ: 2, F4: 1 },
  };
  const device = referenceDevice();
  const dict: Record<string, StoredArray> = Object.fromEntries(
    await toStateDict(device, initLayer(device, "batchNorm2d", 4)),
  );
  for (const [dtype, length] of Object.entries(opaque)) {
    const data = Uint8Array.from({ length }, (_, i) => 17 * i + 1);
    dict[dtype] = { dtype, shape: [2], data } as StoredArray;
  }
  dict.F6_E2M3 = { dtype: "F6_E2M3", shape: [4], data: Uint8Array.of(1, 2, 3) };
  dict.F6_E3M2 = { dtype: "F6_E3M2", shape: [4], data: Uint8Array.of(1, 2, 3) };
  const bytes = writeSafetensors(dict);
  const { tensors } = readSafetensors(bytes);
  // The order of safetensors 0.8.0's own list, from the end.
  const order =
    "U64 I64 F64 C64 F32 U32 I32 BF16 F16 U16 I16 F8_E5M2FNUZ F8_E4M3FNUZ F8_E8M0 F8_E4M3 " +
    "F8_E5M2 I8 U8 F6_E3M2 F6_E2M3 F4 BOOL";
  const found = [...new Set([...tensors.values()].map(({ dtype }) => dtype))];
  assert.deepEqual(found, order.split(" ").filter((dtype) => found.includes(dtype as "U8")));
  for (const [name, array] of Object.entries(dict)) assert.deepEqual(tensors.get(name), array);
  assert.deepEqual(writeSafetensors(tensors), bytes);

  const strict = { strict: false };
  const { model, unexpected } = fromStateDict(
    device,
    initLayer(device, "batchNorm2d", 4),
    tensors,
    strict,
  );
  assert.equal(unexpected.length, 14);
  assert.equal(model.state.numBatchesTracked, 0);
  const wrong = new Map([...tensors, ["bias", dict.I8]]);
  for (const name of ["bias", "num_batches_tracked"]) {
    const shape = name === "bias" ? [4] : [];
    const data = new Uint8Array(shape[0] ?? 1);
    assert.throws(
      () => fromStateDict(device, model, wrong.set(name, { dtype: "I8", shape, data }), strict),
      new RegExp(`"${name}" of dtype I8, which no model here computes with`),
    );
  }
  assert.throws(() => toFloat32(dict.U16), /its dtype must be one of I64 F64 F32 .* is U16, whose/);
  assert.throws(
    () => writeSafetensors({ a: { dtype: "F4", shape: [3], data: Uint8Array.of(1, 2) } }),
    /tensor "a" of shape \(3\) needs 1\.5 bytes: current number of bytes is 2/,
  );
});
