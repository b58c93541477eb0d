/** What a file that is no safetensors file looks like, by its first bytes, and what to do with it. */

import { quote } from "../../words.ts";

/** How files of one kind begin, what they are, and what to do with one. */
type Signature = readonly [start: string | RegExp, what: string, advice: string];

const IN_PYTHON = "load it in Python and save it by safetensors.torch.save_file";

/** Matched against the first bytes as Latin-1. */
const SIGNATURES: readonly Signature[] = [
  ["PK\x03\x04", "a zip archive, as torch.save, Keras and NumPy write", IN_PYTHON],
  ...["\x02", "\x03", "\x04", "\x05"].map((protocol): Signature => [
    `\x80${protocol}`,
    "a Python pickle, as old versions of torch.save write",
    IN_PYTHON,
  ]),
  [
    "\x89HDF\r\n",
    "an HDF5 file, as Keras writes (.h5)",
    "load it in Python and save its arrays as safetensors",
  ],
  ["\x93NUMPY", "a NumPy array (.npy)", "save it in Python by safetensors.numpy.save_file"],
  ["GGUF", "a GGUF file", "take the model's safetensors file instead"],
  ["\x1f\x8b", "a gzip file", "unpack it first"],
  ["version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"],
  [/^\s*<[!?a-z]/i, "a web page or XML", "look whether its address needs a login or is another"],
  [
    /^\s*\{\s*"/,
    "JSON, such as the index of a model in several files",
    "read the .safetensors files",
  ],
];

/** Names the format of a file that is none of safetensors. */
export function lookOf(bytes: Uint8Array): string {
  const start = String.fromCharCode(...bytes.subarray(0, 64));
  const found = SIGNATURES.find(([begin]) =>
    typeof begin === "string" ? start.startsWith(begin) : begin.test(start)
  );
  if (found !== undefined) return ` of what looks like ${found[1]}: ${found[2]}`;
  // A server's few words where a file was wanted.
  return /^[\t\n\r\x20-\x7e]{8,}$/.test(start) ? ` of a text that begins with ${quote(start)}` : "";
}
