/** What the caller of the writer gave, checked and copied into records that the writer can trust. */

import { checkStored, entriesOf } from "../given.ts";
import { quote, wrongKind, wrongValue } from "../../words.ts";
import { METADATA } from "./header.ts";

const ACTION = "write the safetensors file";

/** A tensor that was checked, and the bytes of its elements. */
export interface Piece {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** A view of the caller's array. */
  readonly bytes: Uint8Array;
}

/** Reads the tensors that are to be written. */
export function piecesOf(tensors: unknown): Piece[] {
  return entriesOf(tensors, "tensors", ACTION).map(([name, array]) => {
    checkText(name, "a tensor's name");
    if (name === METADATA) {
      throw wrongValue(ACTION, "a tensor must have another name than that of the metadata", name);
    }
    checkStored(array, `tensor ${quote(name)}`, ACTION);
    const { dtype, shape, data } = array;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { name, dtype, shape, bytes };
  });
}

/** Reads the metadata that are to be written. */
export function textsOf(metadata: unknown): [string, string][] {
  return entriesOf(metadata, "metadata", ACTION).map(([name, text]) => {
    checkText(name, "a name of the metadata");
    checkText(text, `metadata ${quote(name)}`);
    return [name, text];
  });
}

function checkText(text: unknown, what: string): asserts text is string {
  if (typeof text !== "string") {
    throw wrongKind(ACTION, `${what} must be a string`, text);
  }
  // UTF-8 cannot spell one.
  if (/\p{Surrogate}/u.test(text)) {
    throw wrongValue(ACTION, `${what} must have no lone surrogate`, text);
  }
}
