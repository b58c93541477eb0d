/**
 * The JSON of a safetensors header: objects, strings and lists of integers. Whoever calls says what comes next, so that
 * depth is fixed by the program and no text can make it recurse.
 *
 * A scanner of our own, since `JSON.parse` neither tells of a name that occurs twice nor where something is wrong.
 */

import { quote } from "../../words.ts";
import type { SafetensorsErrorCode } from "./error.ts";

/** Throws what was wanted, what came, and where in the text: UTF-16 code units from its start. */
export type Refuse = (
  wanted: string,
  came: string,
  at: number,
  code?: SafetensorsErrorCode,
) => never;

/** Names the thing that is read, for a message: a function, since a header has millions of them and one message. */
export type What = () => string;

/** Reads one text from its start to its end. */
export type Scanner = ReturnType<typeof scan>;

/** Far more than any model has; 100 MB of a header have room for millions, which would take seconds and gigabytes. */
const MOST_NAMES = 250_000;

const [QUOTE, BACKSLASH, SPACE, ZERO, NINE] = [0x22, 0x5c, 0x20, 0x30, 0x39];

const ESCAPES: readonly string[] = [...`"\\/bfnrt`];

/** Makes a scanner, strict as RFC 8259, and without lone surrogates, repeated names or odd integers; in linear time. */
export function scan(text: string, refuse: Refuse) {
  let at = 0;

  const position = (): number => {
    while (text[at] === " " || text[at] === "\n" || text[at] === "\t" || text[at] === "\r") at++;
    return at;
  };
  const next = (): string => {
    const point = text.codePointAt(at);
    return point === undefined ? "the end of the header" : quote(String.fromCodePoint(point));
  };
  const take = (mark: string): boolean => {
    const found = text[position()] === mark;
    if (found) at++;
    return found;
  };
  const demand = (mark: string, wanted: What): void => {
    if (!take(mark)) refuse(wanted(), next(), at);
  };

  const hex = (from: number): number => {
    const digits = text.slice(from, from + 4);
    return /^[\da-f]{4}$/i.test(digits) ? parseInt(digits, 16) : NaN;
  };
  /** Goes past an escape; what it stands for is left to JSON.parse, which is quick and takes no more than what passes here. */
  const escape = (what: What): void => {
    const from = at;
    at += text[from + 1] === "u" ? 6 : 2;
    if (ESCAPES.includes(text[from + 1])) return;
    const unit = text[from + 1] === "u" ? hex(from + 2) : NaN;
    if (Number.isNaN(unit)) {
      const length = text[from + 1] === "u" ? 6 : 2;
      refuse(`${what()} must have no other escapes than JSON's`, quoteFrom(from, length), from);
    }
    if (unit < 0xd800 || unit > 0xdfff) return;
    const low = text.startsWith("\\u", at) ? hex(at + 2) : NaN;
    if (unit > 0xdbff || !(low >= 0xdc00 && low <= 0xdfff)) {
      refuse(`${what()} must have no lone surrogate`, quoteFrom(from, 6), from);
    }
    at += 6;
  };
  const quoteFrom = (from: number, length: number) => quote(text.slice(from, from + length));

  // By hand: a regular expression with alternatives under a star keeps a stack that long strings overflow.
  const string = (what: What): string => {
    demand('"', () => `${what()} must be a string`);
    const from = at;
    let plain = true;
    for (;;) {
      const unit = text.charCodeAt(at);
      if (unit === QUOTE) break;
      if (unit === BACKSLASH) {
        plain = false;
        escape(what);
      } else if (unit >= SPACE) at++;
      else if (at >= text.length) refuse(`${what()} must end with a quote`, next(), at);
      else refuse(`${what()} must have its control characters escaped`, next(), at);
    }
    at++;
    return plain ? text.slice(from, at - 1) : JSON.parse(text.slice(from - 1, at));
  };

  const integer = (what: What): number => {
    const from = position();
    let value = 0;
    for (let unit = text.charCodeAt(at); unit >= ZERO && unit <= NINE; unit = text.charCodeAt(at)) {
      value = value * 10 + (unit - ZERO);
      // One digit more than 2^53 has is enough to tell.
      if (++at - from > 17) break;
    }
    const plain = at > from && (text.charCodeAt(from) !== ZERO || at === from + 1);
    if (plain && Number.isSafeInteger(value) && !/[-+.\w]/.test(text[at] ?? "")) return value;
    at = from;
    const [digits] = /^[-+.\w]*/.exec(text.slice(from, from + 17)) as RegExpExecArray;
    return refuse(
      `${what()} must have integers from 0 to 2^53 - 1, in plain digits`,
      digits === "" ? next() : quote(digits),
      from,
    );
  };
  /** Reads a list of integers from 0 to 2^53 - 1. */
  const integers = (what: What, most: number): number[] => {
    demand("[", () => `${what()} must be a list`);
    const values: number[] = [];
    if (take("]")) return values;
    do {
      if (values.length === most) {
        refuse(`${what()} must have at most ${most} integers`, `${next()} after them`, position());
      }
      values.push(integer(what));
    } while (take(","));
    demand("]", () => `"," or "]" must come next in ${what()}`);
    return values;
  };

  /** Reads an object whose names differ, as `taken` tells; `member` is to read the value of each. */
  const members = (
    what: What,
    member: (name: string, at: number) => void,
    taken: (name: string) => boolean,
  ): void => {
    demand("{", () => `${what()} must be an object`);
    if (take("}")) return;
    const named: What = () => `a name in ${what()}`;
    let count = 0;
    do {
      const from = position();
      if (count++ === MOST_NAMES) {
        refuse(`${what()} must have at most ${MOST_NAMES} names`, next(), at);
      }
      const name = string(named);
      if (taken(name)) refuse(`names in ${what()} must differ`, `${quote(name)} again`, from);
      demand(":", () => `":" must follow a name in ${what()}`);
      member(name, from);
    } while (take(","));
    demand("}", () => `"," or "}" must come next in ${what()}`);
  };
  /** Demands that nothing but white space is left. */
  const end = (what: string): void => {
    if (position() < text.length) refuse(`nothing but white space must follow ${what}`, next(), at);
  };

  return Object.freeze({ position, string, integers, members, end });
}
