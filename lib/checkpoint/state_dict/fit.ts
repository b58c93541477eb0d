/** Which entries of a state dict fit into which nodes of a model. */

import { fromRowMajor } from "../../row_major.ts";
import { sameShape } from "../../tensor.ts";
import type { Entry } from "./entries.ts";
import type { Part } from "./nodes.ts";
import { toFloat32 } from "../numbers.ts";
import { DTYPES, type StateDict, type StoredArray } from "../stored_array.ts";
import { listed, quote } from "../../words.ts";

/** What a state dict has for one node, as the node is rebuilt from it. */
export interface Found {
  /** Elements for each slot in its memory order; null where the old array stays. */
  readonly vectors: readonly (Vector | null)[];
  /** Its counter; null where the dict has none. */
  readonly counter: number | null;
  /** Channels of a layer that was lazy; null for any other node. */
  readonly channels: number | null;
}

type Vector = Float32Array<ArrayBuffer>;

/** What a name stands for: a vector's elements, or a counter. */
type Value = Float32Array | number;

/** What was found for a node, and by which name first. */
type Finding = Map<Entry<unknown>["slot"], { readonly name: string; readonly value: Value }>;

/**
 * Puts a state dict against a model: what was found, and the names that are missing, unexpected (in the dict's order), or do
 * not fit, with the name, what it has and what it should have.
 */
export function compare<A>(
  entries: readonly Entry<A>[],
  given: StateDict,
  version: null | 1 | 2,
) {
  const channels = channelsOf(entries, given);
  const findings = new Map<Part<A>, Finding>();
  const left = new Set(given.keys());
  const missing: string[] = [];
  const mismatches = new Map<string, string>();
  for (const { name, part, slot } of entries) {
    const stored = given.get(name);
    if (stored === undefined) {
      if (slot !== "counter" || version === 2) missing.push(name);
      continue;
    }
    // A layer that stays lazy has no place for a counter.
    if (part.first !== null && !channels.has(part)) continue;
    left.delete(name);
    const finding: Finding = findings.get(part) ?? new Map();
    findings.set(part, finding);
    const reading = read(stored, part, slot, channels.get(part) ?? null);
    const other = finding.get(slot);
    const refuse = (misfit: string) => mismatches.set(name, `${quote(name)} ${misfit}`);
    if (typeof reading === "string") refuse(reading);
    else if (other === undefined) finding.set(slot, { name, value: reading });
    else if (!sameValue(other.value, reading)) {
      refuse(`unlike ${quote(other.name)}, which is the same node`);
    }
  }
  const found = new Map([...findings].map(([part, finding]): [Part<A>, Found] => {
    const own = channels.get(part) ?? null;
    const first = own === null ? undefined : part.first?.(own);
    const value = (slot: Entry<A>["slot"]) => finding.get(slot)?.value ?? null;
    const vectors = part.slots.map((_, i) => (value(i) ?? first?.[i] ?? null) as Vector | null);
    return [part, { vectors, counter: value("counter") as number | null, channels: own }];
  }));
  return { found, missing, unexpected: [...left], mismatches };
}

/** Channels of the lazy layers of which the dict has a vector; null where that is none. */
function channelsOf<A>(
  entries: readonly Entry<A>[],
  given: StateDict,
): ReadonlyMap<Part<A>, number | null> {
  const channels = new Map<Part<A>, number | null>();
  for (const { name, part, slot } of entries) {
    const shape = given.get(name)?.shape;
    if (part.first === null || slot === "counter" || !shape) continue;
    // The first that can be a vector counts, so that another is not what the message blames.
    if ((channels.get(part) ?? null) !== null) continue;
    channels.set(part, shape.length === 1 && shape[0] > 0 ? shape[0] : null);
  }
  return channels;
}

/** Reads an entry as what the model has by its name; a text says how it does not fit. */
function read<A>(
  stored: StoredArray,
  { slots, first }: Part<A>,
  slot: Entry<A>["slot"],
  channels: number | null,
): Value | string {
  const shape = slot === "counter"
    ? []
    : first === null
    ? slots[slot].shape
    : channels === null
    ? null
    : [channels];
  // PyTorch 0.3 had no scalars.
  const isOldCounter = slot === "counter" && sameShape(stored.shape, [1]);
  if (shape === null || !(sameShape(stored.shape, shape) || isOldCounter)) {
    const wanted = shape === null ? "(C), C >= 1" : listed(shape);
    return `of shape ${listed(stored.shape)} instead of ${wanted}`;
  }
  if (DTYPES.get(stored.dtype)?.opaque) {
    return `of dtype ${stored.dtype}, which no model here computes with`;
  }
  if (slot === "counter") return readCounter(stored);
  // Not by toFloat32, which copies, and may do so by way of numbers: one that is none has no bits to rely on then.
  const values = stored.dtype === "F32" ? stored.data : toFloat32(stored);
  return fromRowMajor(values, { shape, format: slots[slot].format });
}

function readCounter(stored: StoredArray): number | string {
  const { dtype, data } = stored;
  // Where float32 would round, the number itself.
  const wide = dtype === "I64" || dtype === "F64" || dtype === "I32";
  const value = wide ? Number(data[0]) : toFloat32(stored)[0];
  // Adding turns -0 into 0.
  if (Number.isSafeInteger(value) && value >= 0) return value + 0;
  return `of value ${wide ? data[0] : value} instead of an integer from 0 to 2^53 - 1`;
}

/** Compares bit by bit. */
export function sameValue(a: Value, b: Value): boolean {
  if (typeof a === "number" || typeof b === "number") return a === b;
  const [x, y] = [a, b].map(({ buffer, byteOffset, length }) =>
    new Uint32Array(buffer, byteOffset, length)
  );
  return x.every((bits, i) => bits === y[i]);
}
