/** Files that must be refused, each for one reason, and where. */

import { fileOf } from "./safetensors_bytes.ts";

/** A file, what must be said of it and the byte that must be named. */
export interface Hostile {
  readonly file: Uint8Array;
  readonly says: RegExp;
  readonly byte: number;
}

const utf8 = new TextEncoder();

/** A file of a header in which ^ stands before the place that must be named; zeros as data. */
function at(marked: string, says: RegExp, data = 0): Hostile {
  const [before, after = ""] = marked.split("^");
  const file = fileOf(before + after, new Uint8Array(data));
  return { file, says, byte: 8 + utf8.encode(before).length };
}

/** The same within the entry of a tensor "a" of one byte. */
const inEntry = (marked: string, says: RegExp, data = 1) => at(`{"a":${marked}}`, says, data);
const inShape = (marked: string, says: RegExp, data = 0) =>
  inEntry(`{"dtype":"U8","shape":${marked},"data_offsets":[0,0]}`, says, data);
const inOffsets = (marked: string, says: RegExp, data = 1) =>
  inEntry(`{"dtype":"U8","shape":[1],"data_offsets":${marked}}`, says, data);
const inName = (marked: string, says: RegExp) =>
  at(`{${marked}:{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, says);
const inMetadata = (marked: string, says: RegExp) => at(`{"__metadata__":${marked}}`, says);

/** Bytes of a name, whose first wrong one is at `wrong`. */
function inUtf8(name: readonly number[], wrong: number): Hostile {
  const [before, after] = ['{"', '":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'];
  const header = Uint8Array.of(...utf8.encode(before), ...name, ...utf8.encode(after));
  const hex = name[wrong].toString(16);
  return {
    file: fileOf(header),
    says: new RegExp(`its header must be UTF-8: current value is 0x${hex}, at`),
    byte: 10 + wrong,
  };
}

/** A header's length that is not that of the two bytes behind it. */
function ofLength(length: bigint, says: RegExp, byte = 0): Hostile {
  return { file: fileOf("{}", undefined, length), says, byte };
}

/** Where two tensors of U8 lie, with ^ before the offsets that must be named. */
function inTwo(a: string, b: string, says: RegExp, data: number): Hostile {
  const entry = (name: string, offsets: string) => {
    const [begin, end] = offsets.match(/\d+/g)!.map(Number);
    return `"${name}":{"dtype":"U8","shape":[${end - begin}],"data_offsets":${offsets}}`;
  };
  return at(`{${entry("a", a)},${entry("b", b)}}`, says, data);
}

const NUMBER = (came: string) =>
  new RegExp(`must have integers from 0 to 2\\^53 - 1, in plain digits: current value is "${came}`);

/** By what is wrong with them. */
export const HOSTILE: Readonly<Record<string, Hostile>> = {
  "no bytes": { file: new Uint8Array(), says: /begin with 8 bytes .* a file of 0 bytes/, byte: 0 },
  "7 bytes": { file: new Uint8Array(7), says: /begin with 8 bytes .* a file of 7 bytes/, byte: 7 },
  "a header of no bytes": ofLength(0n, /must begin with "{": current value is no header/, 8),
  "a header beyond the file": ofLength(3n, /header of 3 bytes must lie within it: .* 10 bytes/),
  "a header at the limit": ofLength(100_000_000n, /header of 100000000 bytes must lie within it/),
  "a header over the limit": ofLength(100_000_001n, /at most 100000000 bytes: .* 100000001,/),
  "a header of 2^53 + 1 bytes": ofLength(2n ** 53n + 1n, /at most .* is 9007199254740993,/),
  "a header of 2^64 - 1 bytes": ofLength(2n ** 64n - 1n, /at most .* is 18446744073709551615,/),
  "white space before": at("^ {}", /must begin with "{": current value is 0x20/),
  "a byte order mark": at("^\ufeff{}", /must begin with "{": current value is 0xef/),
  "a list": at("^[]", /must begin with "{": current value is 0x5b/),

  "UTF-8: a lone continuation": inUtf8([0x41, 0x80], 1),
  "UTF-8: overlong": inUtf8([0xc0, 0x80], 0),
  "UTF-8: a surrogate": inUtf8([0xc3, 0xa9, 0xed, 0xa0, 0x80], 2),
  "UTF-8: cut short": inUtf8([0xf0, 0x9f, 0x98], 0),
  "UTF-8: cut short, begins as the replacement character": inUtf8([0xef, 0xbf], 0),
  "UTF-8: over U+10FFFF": inUtf8([0xf4, 0x90, 0x80, 0x80], 0),
  "UTF-8: behind a replacement character that is meant": inUtf8([0xef, 0xbf, 0xbd, 0xff], 3),

  "text after the object": at("{}^x", /nothing but white space must follow .* is "x"/),
  "a second object": at("{} ^{}", /nothing but white space must follow .* is "{"/),
  "a zero byte after the object": at("{}  ^\0", /nothing but white space .* is "\\u0000"/),
  "another white space": at("{}^\u00a0", /nothing but white space .* is "\u00a0"/),
  "a header that ends early": at('{"a"^', /":" must follow a name in the header: .* the end/),
  "a comma at the end": at('{"__metadata__":{},^}', /a name in the header must be a string/),
  "two commas": at('{"__metadata__":{},^,}', /a name in the header must be a string/),
  "no comma": at('{"__metadata__":{}^"a":{}}', /"," or "}" must come next in the header/),
  "a comment": at("{^/**/}", /a name in the header must be a string: current value is "\/"/),
  "a byte order mark within": at("{^\ufeff}", /a name .* must be a string: .* is "\\u{feff}"/),
  "single quotes": at("{^'a':{}}", /a name in the header must be a string: current value is "'"/),
  "no colon": at('{"a"^,{}}', /":" must follow a name in the header/),

  "a string without end": at(
    '{"a^',
    /a name in the header must end with a quote: .* is the end of the header/,
  ),
  "a control character": inName('"a^\n"', /must have its control characters escaped: .* "\\n"/),
  "an unknown escape": inName('"a^\\x41"', /no other escapes than JSON's: .* is "\\\\x"/),
  "an escape of three digits": inName(
    '"a^\\u12g4"',
    /no other escapes than JSON's: .* "\\\\u12g4"/,
  ),
  "a lone high surrogate": inName('"a^\\ud800"', /no lone surrogate: current value is "\\\\ud800"/),
  "a lone low surrogate": inName('"a^\\udc00"', /no lone surrogate: current value is "\\\\udc00"/),
  "two high surrogates": inName('"a^\\ud800\\ud800"', /no lone surrogate/),
  "two low surrogates": inName('"a^\\udc00\\udc00"', /no lone surrogate/),
  "a high surrogate and no surrogate": inName('"a^\\ud83d\\ue000"', /no lone surrogate/),
  "an escape that is cut off": at('{"a^\\u123', /no other escapes than JSON's: .* "\\\\u123"/),
  "half a pair": inName('"a^\\ud83d\\n"', /no lone surrogate/),

  "a tensor twice": at(
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},^"\\u0061":{"dtype":"U8","shape":[0],' +
      '"data_offsets":[0,0]}}',
    /names in the header must differ: current value is "a" again/,
  ),
  "metadata twice": at('{"__metadata__":{},^"__metadata__":{}}', /names in the header must differ/),
  "a field twice": inEntry(
    '{"shape":[1],^"shape":[1]}',
    /names in tensor "a" must differ: .* "shape"/,
  ),
  "a name of metadata twice": inMetadata('{"a":"1",^"a":"1"}', /names in the metadata must differ/),
  "metadata of null": inMetadata("^null", /the metadata must be an object: current value is "n"/),
  "metadata that are a list": inMetadata("^[]", /the metadata must be an object/),
  "a number as metadata": inMetadata('{"a":^1}', /metadata "a" must be a string: .* is "1"/),
  "nested metadata": inMetadata('{"a":^{"b":"c"}}', /metadata "a" must be a string: .* is "{"/),

  "an entry of null": inEntry("^null", /tensor "a" must be an object/),
  "an entry that is a list": inEntry('^["U8",[1],[0,1]]', /tensor "a" must be an object/),
  "an unknown field": inEntry('{^"x":1}', /tensor "a" must have no fields but .* is "x"/),
  "a field named __proto__": inEntry('{^"__proto__":{}}', /must have no fields but .* "__proto__"/),
  "no fields": at('{^"a":{}}', /tensor "a" must have the fields .* is none/),
  "no dtype": at('{^"a":{"shape":[],"data_offsets":[0,1]}}', /fields .* is shape, data_offsets/, 1),
  "no shape": at(
    '{^"a":{"data_offsets":[0,1],"dtype":"U8"}}',
    /fields .* is data_offsets, dtype/,
    1,
  ),
  "no data_offsets": at('{^"a":{"dtype":"U8","shape":[]}}', /fields .* is dtype, shape/),
  "a dtype that is no string": inEntry('{"dtype":^8}', /the dtype of tensor "a" must be a string/),

  "a shape that is no list": inShape("^1", /the shape of tensor "a" must be a list/),
  "a shape of null": inShape("^null", /the shape of tensor "a" must be a list/),
  "a semicolon": inShape("[1,2^;]", /"," or "]" must come next in the shape of tensor "a"/),
  "a nested shape": inShape("[^[1]]", /the shape of tensor "a" must have integers .* is "\["/),
  "a deeply nested shape": inShape("[^" + "[".repeat(1e6), /must have integers .* is "\["/),
  "a string as extent": inShape('[^"1"]', /must have integers .* is "\\""/),
  "a comma too many": inShape("[1,^]", /must have integers .* is "\]"/),
  "a negative extent": inShape("[^-1]", NUMBER("-1")),
  "minus 0": inShape("[^-0]", NUMBER("-0")),
  "a plus sign": inShape("[^+1]", NUMBER("\\+1")),
  "a fraction": inShape("[^1.0]", NUMBER("1\\.0")),
  "an exponent": inShape("[^1e0]", NUMBER("1e0")),
  "a leading zero": inShape("[^01]", NUMBER("01")),
  "a hexadecimal number": inShape("[^0x1]", NUMBER("0x1")),
  "not a number": inShape("[^NaN]", NUMBER("NaN")),
  "an extent of 2^53": inShape("[^9007199254740992,0]", NUMBER("9007199254740992")),
  "an extent of 2^64": inShape("[^18446744073709551616,0]", NUMBER("18446744073709551")),
  "an extent of a million digits": inShape(`[^${"9".repeat(1e6)}]`, NUMBER('9{17}"')),

  "2^50 elements": inEntry(
    `{"dtype":"U8","shape":[${2 ** 50}],"data_offsets":^[0,${2 ** 50}]}`,
    /tensor "a" must end within the 1 bytes of data: current value is 1125899906842624/,
  ),
  "2^50 elements in no bytes": inEntry(
    `{"dtype":"F64","shape":[${2 ** 50}],"data_offsets":^[0,0]}`,
    /must have 9007199254740992 bytes: current value is 0/,
  ),
  "a product of 2^53": inShape(
    `^[${2 ** 26},${2 ** 27}]`,
    /"a" that are not 0 must have a product/,
  ),
  "a product of 2^80": inShape(
    `^[${2 ** 40},${2 ** 40}]`,
    /"a" that are not 0 must have a product/,
  ),
  "a product of 2^80, and 0": inShape(`^[${2 ** 40},${2 ** 40},0]`, /must have a product below/),
  "0, and a product of 2^80": inShape(`^[0,${2 ** 40},${2 ** 40}]`, /must have a product below/),
  "a product beyond all numbers": inShape(
    `^[${"9007199254740991,".repeat(63)}2]`,
    /a product below/,
  ),
  "fewer bytes than elements": inEntry(
    '{"dtype":"F32","shape":[2,3],"data_offsets":^[0,20]}',
    /tensor "a", F32 of shape \(2, 3\), must have 24 bytes: current value is 20/,
    20,
  ),
  "half an element": inEntry(
    '{"dtype":"I64","shape":[1],"data_offsets":^[0,12]}',
    /tensor "a", I64 of shape \(1\), must have 8 bytes: current value is 12/,
    12,
  ),
  "bytes of an empty tensor": inEntry(
    '{"dtype":"U8","shape":[0],"data_offsets":^[0,1]}',
    /tensor "a", U8 of shape \(0\), must have 0 bytes: current value is 1/,
  ),

  "offsets that are no list": inOffsets("^{}", /the data_offsets of tensor "a" must be a list/),
  "no offsets": inOffsets("^[]", /the data_offsets of tensor "a" must be where .* is \(\)/),
  "one offset": inOffsets("^[1]", /the data_offsets of tensor "a" must be where .* is \(1\)/),
  "three offsets": inOffsets("^[0,1,1]", /data_offsets of tensor "a" must be where .* \(0, 1, 1\)/),
  "offsets in the other order": inOffsets("^[1,0]", /data_offsets of tensor "a" .* is \(1, 0\)/),
  "a negative offset": inOffsets("[^-1,0]", NUMBER("-1")),
  "offsets beyond the data": inOffsets("^[1,2]", /"a" must end within the 1 bytes of data: .* 2,/),
  "offsets near 2^53": inOffsets(
    "^[9007199254740990,9007199254740991]",
    /must end within the 1 bytes of data: current value is 9007199254740991/,
  ),
  "data that are cut off": inOffsets("^[0,1]", /"a" must end within the 0 bytes of data: .* 1,/, 0),

  "data that do not begin at 0": inOffsets(
    "^[1,2]",
    /of tensor "a", the first, must begin at 0/,
    2,
  ),
  "tensors that overlap": inTwo(
    "[0,2]",
    "^[1,3]",
    /"b" must not overlap tensor "a", .* at 2: .* 1,/,
    3,
  ),
  "tensors of the same data": inTwo("[0,2]", "^[0,2]", /"b" must not overlap tensor "a"/, 2),
  "a tensor within another": inTwo("[0,4]", "^[1,2]", /"b" must not overlap tensor "a"/, 4),
  "an empty tensor within another": inTwo("[0,4]", "^[2,2]", /"b" must not overlap tensor "a"/, 4),
  "overlap, written the other way round": inTwo(
    "^[1,3]",
    "[0,2]",
    /"a" must not overlap .* "b"/,
    3,
  ),
  "a hole": inTwo(
    "[0,1]",
    "^[2,3]",
    /"b" must begin at 1, where the data of tensor "a" end: .* 2,/,
    3,
  ),
  "a byte after the last tensor": {
    ...inOffsets(
      "[0,1]",
      /the tensors must cover all data: current value is 1 bytes after the last/,
      2,
    ),
    byte: 8 + '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.length + 1,
  },
  "data without a tensor": at("{}^", /must cover all data: current value is 5 bytes after/, 5),
  "an empty tensor behind a hole": inTwo("[0,1]", "^[2,2]", /"b" must begin at 1, where/, 2),
};
