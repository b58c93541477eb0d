import assert from "node:assert/strict";
import {
  readSafetensors,
  SafetensorsError,
  type StoredArray,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import { HOSTILE } from "./hostile.ts";
import { fileOf, goldens } from "./safetensors_bytes.ts";

const refusal = (file: Uint8Array): SafetensorsError => {
  try {
    readSafetensors(file);
  } catch (error) {
    assert(error instanceof SafetensorsError, String(error));
    return error;
  }
  throw new Error("the file was read");
};

for (const [name, { file, says, byte }] of Object.entries(HOSTILE)) {
  Deno.test(`readSafetensors() refuses ${name}`, () => {
    const before = file.slice();
    const start = performance.now();
    const error = refusal(file);
    // What is claimed costs nothing: neither 2^50 elements nor a million digits or brackets.
    assert(performance.now() - start < 1000);
    assert.match(error.message, says);
    assert.match(
      error.message,
      /^Cannot read the safetensors file as [^]+: current value is [^]+, at byte \d+$/,
    );
    assert.deepEqual([error.name, error.code, error.byte], ["SafetensorsError", "malformed", byte]);
    assert(error.message.endsWith(` ${byte}`) && error.message.length < 400, error.message);
    assert.deepEqual(file, before);
  });
}

for (const dtype of ["F8", "U128", "i8", "f32", "", "__proto__", "constructor"]) {
  Deno.test(`readSafetensors() refuses dtype ${JSON.stringify(dtype)} as unsupported`, () => {
    const before = '{"some \\"name\\"":{"shape":[0],"data_offsets":[0,0],"dtype":';
    const error = refusal(fileOf(`${before}"${dtype}"}}`));
    assert.deepEqual([error.code, error.byte], ["unsupported", 8 + before.length]);
    assert(
      error.message.includes(
        `the dtype of tensor "some \\"name\\"" must be one of U64 I64 F64 C64 F32`,
      ),
    );
    assert(error.message.includes(`current value is "${dtype}"`));
  });
}

Deno.test("readSafetensors() names bytes, not characters, and escapes and shortens names", () => {
  const name = "\u001b[31mé\u009b\u202e😀" + "x".repeat(1e6);
  const header = `{${JSON.stringify(name)}:{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`;
  const error = refusal(fileOf(header));
  const place = header.indexOf("[0,1]");
  assert.equal(error.byte, 8 + new TextEncoder().encode(header.slice(0, place)).length);
  assert(error.byte > 8 + place);
  assert.match(error.message, /tensor "\\u001b\[31mé\\u\{9b\}\\u\{202e\}😀x{60,80}…" must end/);
});

Deno.test("readSafetensors() refuses every file that was cut off, and never by another error", () => {
  for (const { bytes } of goldens()) {
    for (let length = 0; length < bytes.length; length++) {
      const { code, byte } = refusal(bytes.subarray(0, length));
      assert.equal(code, "malformed");
      assert(byte <= length);
    }
  }
});

Deno.test("readSafetensors() takes other bytes than a Uint8Array for a wrong program", () => {
  for (const value of [null, undefined, "", [], new ArrayBuffer(8), new Uint16Array(8), {}]) {
    assert.throws(() => readSafetensors(value as Uint8Array), {
      name: "TypeError",
      message: /^Cannot read the safetensors file as bytes must be a Uint8Array: current value is /,
    });
  }
});

const F32 = { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) };
const WRONG: Readonly<
  Record<string, readonly [unknown, typeof TypeError | typeof RangeError, RegExp]>
> = {
  "no record": [
    { a: null },
    TypeError,
    /tensor "a" must be a record of dtype, shape and data: .* null/,
  ],
  "an unknown dtype": [
    { a: { ...F32, dtype: "F8" } },
    TypeError,
    /the dtype of tensor "a" .* "F8"/,
  ],
  "a dtype of a prototype": [
    { a: { ...F32, dtype: "constructor" } },
    TypeError,
    /the dtype of tensor "a"/,
  ],
  "no dtype": [
    { a: { ...F32, dtype: undefined } },
    TypeError,
    /the dtype of tensor "a" .* undefined/,
  ],
  "no shape": [
    { a: { ...F32, shape: undefined } },
    TypeError,
    /the shape of tensor "a" must be an array/,
  ],
  "a typed shape": [
    { a: { ...F32, shape: Int32Array.of(2) } },
    TypeError,
    /the shape of tensor "a" .* Int32Array/,
  ],
  "a negative extent": [
    { a: { ...F32, shape: [-2] } },
    RangeError,
    /extent of tensor "a" .* is -2/,
  ],
  "a fraction": [{ a: { ...F32, shape: [2.5] } }, RangeError, /extent of tensor "a" .* is 2.5/],
  "an extent that is a text": [
    { a: { ...F32, shape: ["2"] } },
    RangeError,
    /extent of tensor "a" .* is "2"/,
  ],
  "a hole in the shape": [
    { a: { ...F32, shape: Array(1) } },
    RangeError,
    /extent of tensor "a" .* undefined/,
  ],
  "an extent of 2^53": [{ a: { ...F32, shape: [2 ** 53] } }, RangeError, /extent of tensor "a"/],
  "too large a shape": [
    { a: { ...F32, shape: [2 ** 40, 0, 2 ** 40] } },
    RangeError,
    /"a" that are not 0 .* product/,
  ],
  "other data": [
    { a: { ...F32, data: Float64Array.of(1, 2) } },
    TypeError,
    /"a", F32, must be a Float32Array: .* Float64Array/,
  ],
  "a list as data": [
    { a: { ...F32, data: [1, 2] } },
    TypeError,
    /"a", F32, must be a Float32Array: .* Array/,
  ],
  "half as numbers": [
    { a: { ...F32, dtype: "F16" } },
    TypeError,
    /"a", F16, must be a Uint16Array/,
  ],
  "too little data": [
    { a: { ...F32, shape: [3] } },
    TypeError,
    /"a" of shape \(3\) needs 3 elements: .* is 2$/,
  ],
  "data of a scalar": [
    { a: { ...F32, shape: [] } },
    TypeError,
    /"a" of shape \(\) needs 1 elements: .* is 2$/,
  ],
  "a tensor named __metadata__": [
    { __metadata__: F32 },
    RangeError,
    /must have another name .* "__metadata__"/,
  ],
  "a lone surrogate": [
    { "a\ud800": F32 },
    RangeError,
    /a tensor's name must have no lone surrogate: .* "a\\ud800"/,
  ],
  "a name that is no text": [
    new Map([[1, F32]]),
    TypeError,
    /a tensor's name must be a string: .* 1$/,
  ],
  "a list of tensors": [[F32], TypeError, /tensors must be a Map or a plain record: .* Array/],
  "null as tensors": [null, TypeError, /tensors must be a Map or a plain record: .* null/],
  "an instance of a class": [
    new Date(),
    TypeError,
    /tensors must be a Map or a plain record: .* Date/,
  ],
};

for (const [name, [tensors, kind, says]] of Object.entries(WRONG)) {
  Deno.test(`writeSafetensors() refuses ${name}`, () => {
    assert.throws(() => writeSafetensors(tensors as Record<string, StoredArray>), (error) => {
      assert(error instanceof kind, String(error));
      assert.match(error.message, /^Cannot write the safetensors file as .*: current [a-z ]+ is /);
      assert.match(error.message, says);
      return true;
    });
  });
}

Deno.test("writeSafetensors() refuses metadata that are no strings", () => {
  const write = (metadata: unknown) => () =>
    writeSafetensors({}, metadata as Record<string, string>);
  assert.throws(
    write({ a: 1 }),
    /^TypeError: .* metadata "a" must be a string: current value is 1$/,
  );
  assert.throws(write({ a: undefined }), /^TypeError: .* metadata "a" must be a string/);
  assert.throws(
    write(new Map([[1, "a"]])),
    /^TypeError: .* a name of the metadata must be a string/,
  );
  assert.throws(
    write("text"),
    /^TypeError: .* metadata must be a Map or a plain record: .* "text"$/,
  );
  assert.throws(
    write({ "\udc00": "" }),
    /^RangeError: .* a name of the metadata must have no lone/,
  );
  assert.throws(write({ a: "\udc00" }), /^RangeError: .* metadata "a" must have no lone surrogate/);
});

Deno.test("writeSafetensors() refuses a header that could not be read again", () => {
  assert.throws(
    () => writeSafetensors({}, { long: "x".repeat(100_000_000) }),
    /^RangeError: .* its header must have at most 100000000 bytes: current value is 100000032$/,
  );
});

const FOREIGN: Readonly<Record<string, readonly [string, RegExp]>> = {
  "a Git LFS pointer": [
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    /a Git LFS pointer, not the file itself: run git lfs pull, at byte 0$/,
  ],
  "a web page": [
    "<!DOCTYPE html><html><body>Sign in</body></html>",
    /a web page or XML: look whether/,
  ],
  "an error of a server": ["\n<?xml version='1.0'?><Error>", /a web page or XML/],
  "a few words": ["Entry not found", /of a text that begins with "Entry not found", at byte 0$/],
  "the index of a model": [
    '{"metadata": {}, "weight_map": {}}',
    /JSON, such as the index of a model/,
  ],
  "a zip of torch.save": ["PK\x03\x04\0\0\x08\x08" + "\0".repeat(200), /torch\.save.*save_file/],
  "an old torch.save": ["\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", /a Python pickle.*save_file/],
  "a model of Keras": ["\x89HDF\r\n\x1a\n" + "\0".repeat(200), /an HDF5 file, as Keras/],
  "an array of NumPy": ["\x93NUMPY\x01\0v\0{'descr'", /a NumPy array.*safetensors\.numpy/],
  "a GGUF file": ["GGUF\x03\0\0\0", /a GGUF file/],
  "a gzip file": ["\x1f\x8b\x08\0\0\0\0\0", /a gzip file: unpack it first/],
};
for (const [name, [text, says]] of Object.entries(FOREIGN)) {
  Deno.test(`readSafetensors() tells ${name} by its first bytes`, () => {
    const error = refusal(Uint8Array.from(text, (mark) => mark.charCodeAt(0)));
    assert.equal(error.code, "malformed");
    assert.match(error.message, says);
    assert.match(
      error.message,
      /^Cannot read the safetensors file as .*: current value is .*, at byte 0$/,
    );
  });
}

Deno.test("a file that begins like another format, and is sound, is read", () => {
  // The length of the header, 0x280, spells the first bytes of a pickle.
  const file = fileOf("{}" + " ".repeat(0x280 - 2));
  assert.deepEqual([...file.subarray(0, 2)], [0x80, 0x02]);
  assert.equal(readSafetensors(file).tensors.size, 0);
});

Deno.test("a long header is read or refused in time that grows as it does, whatever it is filled with", () => {
  const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
  const many = (part: (i: number) => string, count: number) =>
    Array.from({ length: count }, (_, i) => part(i)).join();
  const fillings = (
    length: number,
  ): Readonly<Record<string, readonly [string, RegExp | null]>> => ({
    tensors: [
      `{${many((i) => `"${i}":${entry}`, length / 60)}}`,
      length > 16e6 ? /header must have at most 250000 names/ : null,
    ],
    extents: [
      `{"a":{"dtype":"U8","shape":[${"0,".repeat(length / 2)}0],"data_offsets":[0,0]}}`,
      /shape of tensor "a" must have at most 64 integers/,
    ],
    offsets: [
      `{"a":{"dtype":"U8","shape":[0],"data_offsets":[${"0,".repeat(length / 2)}0]}}`,
      /data_offsets of tensor "a" must have at most 64 integers/,
    ],
    metadata: [
      `{"__metadata__":{${many((i) => `"${i}":""`, length / 60)}}}`,
      length > 16e6 ? /metadata must have at most 250000 names/ : null,
    ],
    escapes: [`{"__metadata__":{"a":"${"\\n".repeat(length / 2)}"}}`, null],
    surrogates: [`{"__metadata__":{"a":"${"\\ud83d\\ude00".repeat(length / 12)}"}}`, null],
    space: [`{${" ".repeat(length)}}`, null],
  });
  const time = (name: string, [header, says]: readonly [string, RegExp | null]): number => {
    const file = fileOf(header);
    const start = performance.now();
    if (says !== null) assert.match(refusal(file).message, says, name);
    else readSafetensors(file);
    return performance.now() - start;
  };
  const [short, long] = [fillings(5e5), fillings(5e6)];
  for (const name of Object.keys(short)) {
    const least = Math.min(time(name, short[name]), time(name, short[name]));
    // Ten times as long takes ten times the time, where a square would take a hundred; other programs run beside it.
    const took = time(name, long[name]);
    assert(took < 40 * least + 500, `${name} took ${took} ms, a tenth of it ${least} ms`);
  }
});
