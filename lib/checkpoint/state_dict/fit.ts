/** Which entries of a state dict fit into which nodes of a model. */

import { fromRowMajor } from "../../row_major.ts";
import { DTYPES } from "../dtypes.ts";
import type { Entry } from "./entries.ts";
import type { Part } from "./nodes.ts";
import { toFloat32 } from "../numbers.ts";
import type { StateDict, StoredArray } from "../stored_array.ts";
import { listed, quote } from "../../words.ts";

/** What a state dict has for one node. */
export interface Found {
  /** Elements for each slot in its memory order; null where the dict has none. */
  readonly vectors: readonly (Float32Array<ArrayBuffer> | null)[];
  /** Its counter; null where the dict has none. */
  readonly counter: number | null;
  /** Channels of a layer that was lazy; null for any other node. */
  readonly channels: number | null;
}

/** An entry that does not fit. */
export interface Mismatch {
  readonly name: string;
  /** The name, what it has and what it should have. */
  readonly text: string;
}

/** A state dict put against a model. */
export interface Comparison<A> {
  /** The nodes for which the dict has something. */
  readonly found: ReadonlyMap<Part<A>, Found>;
  /** In the model's order, as the others but `unexpected`, which are in the dict's. */
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  readonly mismatches: readonly Mismatch[];
}

/** What a name stands for: a vector's elements, or a counter. */
type Value = Float32Array | number;

/** An entry read as what the model has by its name, or how it does not fit. */
type Reading = { readonly value: Value } | { readonly misfit: string };

/** What was found for a node, and by which name first. */
type Finding = Map<Entry<unknown>["slot"], { readonly name: string; readonly value: Value }>;

/** Puts a state dict against a model. */
export function compare<A>(
  entries: readonly Entry<A>[],
  given: StateDict,
  version: null | 1 | 2,
): Comparison<A> {
  const channels = channelsOf(entries, given);
  const findings = new Map<Part<A>, Finding>();
  const left = new Set(given.keys());
  const missing: string[] = [];
  const mismatches: Mismatch[] = [];
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
    const reading = slot === "counter"
      ? readCounter(stored)
      : readVector(stored, part, slot, channels.get(part) ?? null);
    const misfit = "misfit" in reading ? reading.misfit : unlike(finding.get(slot), reading.value);
    if (misfit !== null) mismatches.push({ name, text: `${quote(name)} ${misfit}` });
    else if ("value" in reading) finding.set(slot, { name, ...reading });
  }
  const found = new Map([...findings].map(([part, finding]) => {
    const value = (slot: Entry<A>["slot"]) => finding.get(slot)?.value ?? null;
    const vectors = part.slots.map((_, i) => value(i) as Float32Array<ArrayBuffer> | null);
    const counter = value("counter") as number | null;
    return [part, { vectors, counter, channels: channels.get(part) ?? null }];
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

function readVector<A>(
  stored: StoredArray,
  { slots, first }: Part<A>,
  slot: number,
  channels: number | null,
): Reading {
  const { format, shape: own } = slots[slot];
  const shape = first === null ? own : channels === null ? null : [channels];
  const wanted = shape === null ? "(C), C >= 1" : listed(shape);
  if (shape === null || !sameShape(shape, stored.shape)) {
    return { misfit: `of shape ${listed(stored.shape)} instead of ${wanted}` };
  }
  if (DTYPES.get(stored.dtype)?.opaque) return { misfit: opaqueText(stored) };
  // Not by toFloat32, which copies, and may do so by way of numbers: one that is none has no bits to rely on then.
  const values = stored.dtype === "F32" ? stored.data : toFloat32(stored);
  return { value: fromRowMajor(values, { shape, format }) };
}

function readCounter(stored: StoredArray): Reading {
  const { shape, dtype, data } = stored;
  // PyTorch 0.3 had no scalars.
  if (!sameShape(shape, []) && !sameShape(shape, [1])) {
    return { misfit: `of shape ${listed(shape)} instead of ()` };
  }
  if (DTYPES.get(dtype)?.opaque) return { misfit: opaqueText(stored) };
  // Where float32 would round, the number itself.
  const wide = dtype === "I64" || dtype === "F64" || dtype === "I32";
  const value = wide ? Number(data[0]) : toFloat32(stored)[0];
  // Adding turns -0 into 0.
  if (Number.isSafeInteger(value) && value >= 0) return { value: value + 0 };
  const came = wide ? data[0] : value;
  return { misfit: `of value ${came} instead of an integer from 0 to 2^53 - 1` };
}

function opaqueText({ dtype }: StoredArray): string {
  return `of dtype ${dtype}, which no model here computes with`;
}

/** How a value differs from that by another name of the same node; null where it does not. */
function unlike(
  other: { readonly name: string; readonly value: Value } | undefined,
  value: Value,
): string | null {
  if (other === undefined || sameValue(other.value, value)) return null;
  return `unlike ${quote(other.name)}, which is the same node`;
}

/** Compares bit by bit. */
export function sameValue(a: Value, b: Value): boolean {
  if (typeof a === "number" || typeof b === "number") return a === b;
  const [x, y] = [a, b].map(({ buffer, byteOffset, length }) =>
    new Uint32Array(buffer, byteOffset, length)
  );
  return x.every((bits, i) => bits === y[i]);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}
