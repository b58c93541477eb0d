/** Damages files of the safetensors format: their bytes, the tokens of their headers, and what the headers say. */

import { fileOf } from "./safetensors_bytes.ts";

/** Draws an integer in [0, below). */
export type Draw = (below: number) => number;

/** Damages a file; another file lends it parts. */
export type Mutation = (file: Uint8Array, other: Uint8Array, draw: Draw) => Uint8Array;

const NUMBERS = ["0", "1", "2", "3", "7", "8", "16", "255", "-1", "-0", "01", "1.0", "1e0", "1e999"]
  .concat(
    [31, 32, 40, 50, 53, 63, 64].flatMap((
      bits,
    ) => [`${2n ** BigInt(bits)}`, `${2n ** BigInt(bits) - 1n}`]),
    ["9".repeat(400), "NaN", "0x10", "+1", "1_0"],
  );
const STRINGS = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "U16", "f32"]
  .concat(
    [
      "dtype",
      "shape",
      "data_offsets",
      "__metadata__",
      "__proto__",
      "a",
      "",
      "\\u0061",
      "\\ud83d\\ude00",
    ],
    ["\\ud800", "\\udc00x", "\\ud800\\ud800", "\\x", "\\u12g4", "\0", "\n", "\\", "😀", "\u2028"],
  ).map((text) => `"${text}"`);
const VALUES = [
  "null",
  "true",
  "[]",
  "{}",
  "[1]",
  "[2,3]",
  "[0,0]",
  "[0,1,2]",
  '{"a":"b"}',
  '{"a":1}',
  "[[]]",
].concat(
  ["[".repeat(3000), '{"a":'.repeat(1500), "[1099511627776,1099511627776,0]", "[1,]", ","],
);
const GAPS = [" ", "\n", "\t", "\r", "   ", "\u00a0", "\ufeff", "/**/", "\0", "x", "{}"];

const pick = <T>(values: readonly T[], draw: Draw): T => values[draw(values.length)];

/** The same values but for `count` of them from `at`, in whose place are others. */
const spliced = <T>(
  values: readonly T[],
  at: number,
  count: number,
  ...others: readonly T[]
): T[] => //
[...values.slice(0, at), ...others, ...values.slice(at + count)];

function join(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A piece of a file, of 0 to 64 bytes. */
function piece(file: Uint8Array, draw: Draw): Uint8Array {
  const from = draw(file.length + 1);
  return file.subarray(from, from + draw(65));
}

/** Where the header ends, as the file says and as far as there are bytes. */
function headerEnd(file: Uint8Array): number {
  if (file.length < 8) return file.length;
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  return length > BigInt(file.length - 8) ? file.length : 8 + Number(length);
}

const bytes: Readonly<Record<string, Mutation>> = {
  "flip bits": (file, _, draw) => {
    const copy = file.slice();
    for (let left = 1 + draw(4); left > 0 && copy.length > 0; left--) {
      copy[draw(copy.length)] ^= 1 << draw(8);
    }
    return copy;
  },
  "truncate": (file, _, draw) => file.slice(0, draw(file.length + 1)),
  "cut the front": (file, _, draw) => file.slice(draw(Math.min(file.length, 16) + 1)),
  "append": (file, other, draw) => join(file, piece(other, draw)),
  "insert": (file, _, draw) => {
    const at = draw(file.length + 1);
    const noise = Uint8Array.from({ length: 1 + draw(8) }, () => draw(256));
    return join(file.subarray(0, at), noise, file.subarray(at));
  },
  "splice": (file, other, draw) => {
    const at = draw(file.length + 1);
    return join(file.subarray(0, at), piece(other, draw), file.subarray(at + draw(65)));
  },
  "repeat a piece": (file, _, draw) => {
    const at = draw(file.length + 1);
    return join(file.subarray(0, at), piece(file, draw), file.subarray(at));
  },
  "other header": (file, other) =>
    join(other.subarray(0, headerEnd(other)), file.subarray(headerEnd(file))),
  "header length": (file, _, draw) => {
    const [end, exact] = [headerEnd(file), [0n, 1n, 2n ** 40n, 2n ** 53n, 2n ** 64n - 1n]];
    const length = draw(2) === 0 ? pick(exact, draw) : BigInt(Math.max(0, end - 8 + draw(17) - 8));
    return fileOf(file.subarray(8, end), file.subarray(end), length);
  },
};

/** A mutation of the header's tokens; the length before it is put right. */
function ofTokens(change: (tokens: string[], draw: Draw) => string[]): Mutation {
  return (file, _, draw) => {
    const end = headerEnd(file);
    const text = new TextDecoder().decode(file.subarray(8, end));
    const tokens = text.match(/"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|[^]/g) ?? [];
    return fileOf(change(tokens, draw).join(""), file.subarray(end));
  };
}

/** Replaces a token of one kind. */
function ofKind(kind: RegExp, replacements: readonly string[]): Mutation {
  return ofTokens((tokens, draw) => {
    const places = tokens.flatMap((token, at) => kind.test(token) ? [at] : []);
    if (places.length === 0) return tokens;
    return spliced(tokens, pick(places, draw), 1, pick(replacements, draw));
  });
}

const tokens: Readonly<Record<string, Mutation>> = {
  "change a number": ofKind(/^\d/, NUMBERS),
  "change a string": ofKind(/^"/, STRINGS),
  "change any token": ofKind(/^/, [...NUMBERS, ...STRINGS, ...VALUES, ...GAPS, ...'[]{}:,"']),
  "white space": ofTokens((all, draw) => spliced(all, draw(all.length + 1), 0, pick(GAPS, draw))),
  "drop a token": ofTokens((all, draw) => spliced(all, draw(all.length + 1), 1)),
  "double a token": ofTokens((all, draw) => {
    const at = draw(all.length + 1);
    return spliced(all, at, 0, ...all.slice(at, at + 1));
  }),
  "swap tokens": ofTokens((all, draw) => {
    if (all.length === 0) return all;
    const [a, b] = [draw(all.length), draw(all.length)];
    return all.map((token, at) => at === a ? all[b] : at === b ? all[a] : token);
  }),
};

/** A member of the header: its name, and the names and values of its fields, all as they are spelled. */
type Member = readonly [name: string, fields: readonly (readonly [name: string, value: string])[]];

interface Parts {
  readonly members: readonly Member[];
  readonly data: Uint8Array;
}

/** A mutation of what the header says; files whose headers are no JSON any more stay as they are. */
function ofParts(change: (parts: Parts, draw: Draw) => Partial<Parts>): Mutation {
  return (file, _, draw) => {
    const end = headerEnd(file);
    let members: Member[];
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, end));
      members = Object.entries<object>(JSON.parse(text)).map(([name, fields]) => [
        JSON.stringify(name),
        Object.entries(fields).map(([field, value]) => [
          JSON.stringify(field),
          JSON.stringify(value),
        ]),
      ]);
    } catch {
      return file;
    }
    const parts = { members, data: file.subarray(end) };
    const { members: changed, data } = { ...parts, ...change(parts, draw) };
    const text = changed.map(([name, fields]) =>
      `${name}:{${fields.map(([field, value]) => `${field}:${value}`).join(",")}}`
    );
    return fileOf(`{${text.join(",")}}${" ".repeat(draw(9))}`, data);
  };
}

/** A mutation of one member's fields; `kind` finds the members that it is for. */
function ofMember(
  change: (fields: Member[1], parts: Parts, draw: Draw) => Member[1],
  kind: (member: Member) => boolean = () => true,
): Mutation {
  return ofParts((parts, draw) => {
    const places = parts.members.flatMap((member, at) => kind(member) ? [at] : []);
    if (places.length === 0) return {};
    const at = pick(places, draw);
    const [name, fields] = parts.members[at];
    return { members: spliced(parts.members, at, 1, [name, change(fields, parts, draw)]) };
  });
}

/** Changes the numbers of all offsets or shapes. */
function renumbered(members: readonly Member[], field: string, change: (value: number) => number) {
  return members.map(([name, fields]): Member => [
    name,
    fields.map(([key, value]) => [
      key,
      key === field ? value.replace(/\d+/g, (digits) => `${change(Number(digits))}`) : value,
    ]),
  ]);
}

const [SHAPE, OFFSETS, METADATA] = ['"shape"', '"data_offsets"', '"__metadata__"'];
const isTensor = ([name]: Member) => name !== METADATA;
const set = (fields: Member[1], field: string, value: string): Member[1] =>
  fields.map(([key, old]) => [key, key === field ? value : old]);
const numbersOf = (fields: Member[1], field: string): number[] =>
  (fields.find(([key]) => key === field)?.[1].match(/\d+/g) ?? []).map(Number);

const structure: Readonly<Record<string, Mutation>> = {
  "shuffle members": ofParts(({ members }, draw) => {
    const keyed = members.map((member) => ({ member, key: draw(2 ** 20) }));
    return { members: keyed.sort((a, b) => a.key - b.key).map(({ member }) => member) };
  }),
  "shuffle fields": ofMember((fields, _, draw) => {
    const at = draw(fields.length + 1);
    return [...fields.slice(at), ...fields.slice(0, at)];
  }),
  "double a member": ofParts(({ members }, draw) =>
    members.length === 0 ? {} : { members: [...members, pick(members, draw)] }
  ),
  "drop a member": ofParts(({ members }, draw) => ({
    members: spliced(members, draw(members.length + 1), 1),
  })),
  "rename a member": ofParts(({ members }, draw) => {
    if (members.length === 0) return {};
    const at = draw(members.length);
    return { members: spliced(members, at, 1, [pick(STRINGS, draw), members[at][1]]) };
  }),
  "double a field": ofMember((fields, _, draw) =>
    fields.length === 0 ? fields : [...fields, pick(fields, draw)]
  ),
  "drop a field": ofMember((fields, _, draw) => spliced(fields, draw(fields.length + 1), 1)),
  "add a field": ofMember((
    fields,
    _,
    draw,
  ) => [...fields, [pick(STRINGS, draw), pick(VALUES, draw)]]),
  "change a value": ofMember((fields, _, draw) =>
    spliced(fields, draw(fields.length), 1, [
      fields[draw(fields.length)]?.[0] ?? '"a"',
      pick([...VALUES, ...STRINGS, ...NUMBERS], draw),
    ])
  ),
  "add metadata": ofParts(({ members }, draw) => ({
    members: [...members, [METADATA, [[pick(STRINGS, draw), pick(STRINGS, draw)]]]],
  })),
  "double metadata": ofMember(
    (fields) => [...fields, ...fields],
    ([name]) => name === METADATA,
  ),
  "add an empty tensor": ofParts(({ members, data }, draw) => {
    const at = draw(data.length + 1);
    const fields = [['"dtype"', '"F32"'], [SHAPE, "[2,0]"], [OFFSETS, `[${at},${at}]`]] as const;
    return { members: [...members, ['"empty"', fields]] };
  }),
  "change an extent": ofMember((fields, _, draw) => {
    const shape: (number | string)[] = numbersOf(fields, SHAPE);
    const at = draw(shape.length + 1);
    return set(fields, SHAPE, `[${spliced(shape, at, draw(2), pick(NUMBERS.slice(0, 8), draw))}]`);
  }, isTensor),
  // Another shape of as many elements, which stays valid.
  "regroup a shape": ofMember((fields) => {
    const product = numbersOf(fields, SHAPE).reduce((a, b) => a * b, 1);
    return set(fields, SHAPE, `[1,${product}]`);
  }, isTensor),
  "overflow a shape": ofMember((fields, _, draw) => {
    const shape = numbersOf(fields, SHAPE);
    return set(fields, SHAPE, `[${spliced(shape, draw(shape.length + 1), 0, 2 ** 40, 2 ** 40)}]`);
  }, isTensor),
  "swap offsets": ofMember((fields) => {
    return set(fields, OFFSETS, `[${numbersOf(fields, OFFSETS).reverse()}]`);
  }, isTensor),
  "move offsets": ofMember((fields, _, draw) => {
    const by = draw(17) - 8;
    return set(
      fields,
      OFFSETS,
      `[${numbersOf(fields, OFFSETS).map((at) => Math.max(0, at + by))}]`,
    );
  }, isTensor),
  "move all offsets": ofParts(({ members, data }, draw) => {
    const by = 1 + draw(8);
    const moved = renumbered(members, OFFSETS, (at) => at + by);
    return { members: moved, data: draw(2) === 0 ? data : join(new Uint8Array(by), data) };
  }),
  // All that begins behind some byte moves on, with its data: a hole, and nothing else is wrong.
  "leave a hole": ofParts(({ members, data }, draw) => {
    const ends = members.flatMap(([, fields]) => numbersOf(fields, OFFSETS).slice(1));
    if (ends.length === 0) return {};
    const [from, by] = [pick(ends, draw), 1 + draw(8)];
    const moved = members.map((member) =>
      numbersOf(member[1], OFFSETS)[0] < from
        ? member
        : renumbered([member], OFFSETS, (at) => at + by)[0]
    );
    const filled = join(data.subarray(0, from), new Uint8Array(by), data.subarray(from));
    return { members: moved, data: filled };
  }),
  "cut the data": ofParts(({ data }, draw) => ({ data: data.slice(0, draw(data.length + 1)) })),
  "lengthen the data": ofParts(({ data }, draw) => ({
    data: join(data, new Uint8Array(1 + draw(8))),
  })),
};

/** All of them by name. */
export const MUTATIONS: Readonly<Record<string, Mutation>> = { ...bytes, ...tokens, ...structure };
