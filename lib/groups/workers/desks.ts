/** What the ranks lay down for a call, and whether it is the same call for all of them. */

import type { CollectiveError } from "../../errors.ts";
import type { Patience } from "../../patience.ts";
import { checkContribution } from "../contributions.ts";
import type { Request } from "../engine.ts";
import { judge, messageOf, type Saying } from "../failures.ts";
import { type Area, DESK, type Desk } from "./area.ts";

/** A call of a rank. */
export interface Call {
  readonly number: number;
  readonly request: Request;
  /** What is left of its time. */
  readonly patience: Patience;
  /** Whether its values are a copy already, which nobody else writes to. */
  readonly owned: boolean;
}

/** What a rank brings to a round: values and what all must call alike, or why it brings nothing. */
export type Part = Brought | { readonly cause: unknown; readonly text: string };

/** What a rank brings that has not failed. */
export interface Brought {
  /** What lies on the desk; may be less than there is in all. */
  readonly values: Float64Array;
  /** Number of values of the call, the same on all ranks. */
  readonly length: number;
  readonly text: string;
}

/** Lays one rank's parts on its desks. */
export type LayDown = (side: number, part: Part, alone: boolean) => void;

/** Checks what a rank brings and describes it; what is wrong with it is the rank's failure. */
export function partOf(request: Request, own: () => Float64Array): Part {
  const { name, detail } = request;
  try {
    const values = own();
    const { length } = checkContribution(values, name);
    return { values, length, text: `${name} ${detail(values)}` };
  } catch (cause) {
    return failedPart(request, cause);
  }
}

/** The part of a rank that failed before it had anything to bring. */
export function failedPart({ name }: Request, cause: unknown): Part {
  return { cause, text: `${name}: ${messageOf(cause)}` };
}

/** Prepares a rank's desks. */
export function openDesks({ desks, capacity }: Area, rank: number): LayDown {
  /** What the desks say, so that the same need not be written again. */
  const written = [{ text: "", code: hash("") }, { text: "", code: hash("") }];
  return (side, part, alone) => {
    const { saying, words, values } = desks[side][rank];
    if (part.text !== written[side].text) {
      saying.write(part.text);
      written[side] = { text: part.text, code: hash(part.text) };
    }
    const brought = "values" in part;
    words[DESK.failed] = brought ? 0 : 1;
    words[DESK.alone] = alone ? 1 : 0;
    words[DESK.length] = brought ? part.length : 0;
    [words[DESK.hash], words[DESK.hash2]] = written[side].code;
    if (brought && part.values.length <= capacity) values.set(part.values);
  };
}

/** Whether all ranks brought parts of the same call. */
export function agreed(desks: readonly Desk[]): boolean {
  const [{ words: first }] = desks;
  return desks.every(({ words }) =>
    words[DESK.failed] === 0 && words[DESK.length] === first[DESK.length] &&
    words[DESK.hash] === first[DESK.hash] && words[DESK.hash2] === first[DESK.hash2]
  );
}

/** What every rank says. */
export function sayingsOf(desks: readonly Desk[]): readonly Saying[] {
  return desks.map(({ words, saying }) => ({
    failed: words[DESK.failed] === 1,
    text: saying.read(),
  }));
}

/** Says why the ranks do not go on with a call. */
export function refusalOf(call: number, desks: readonly Desk[], cause: unknown): CollectiveError {
  const sayings = sayingsOf(desks);
  // Texts may differ past what is read of them.
  const marked = () =>
    sayings.map(({ failed, text }, other) => {
      const { words } = desks[other];
      const marks = [words[DESK.hash], words[DESK.hash2], words[DESK.length]];
      return { failed, text: `${text} (${marks.map((mark) => (mark >>> 0).toString(16))})` };
    });
  return judge(call, sayings, cause) ?? judge(call, marked(), cause)!;
}

/** 64 bits that differ where texts do: FNV-1a with two bases (Fowler, Noll, Vo 1991). */
function hash(text: string): readonly [number, number] {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x01000193) ^ (b >>> 15);
  }
  return [a | 0, b | 0];
}
