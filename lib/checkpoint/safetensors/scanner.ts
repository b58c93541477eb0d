/**
 * The JSON of a safetensors header: objects, strings and lists of integers. Whoever calls says what comes next, so that
 * depth is fixed by the program and no text can make it recurse.
 *
 * A scanner of our own, since `JSON.parse` neither tells of a name that occurs twice nor where something is wrong.
 *
 * @module
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

/** Reads one text from its start to its end. `what` names the thing that is read, for messages. */
export interface Scanner {
  /** Where the next token begins. */
  readonly position: () => number;
  /** Reads a string. */
  readonly string: (what: string) => string;
  /** Reads a list of integers from 0 to 2^53 - 1. */
  readonly integers: (what: string) => number[];
  /** Reads an object whose names differ; `member` is to read the value of each. */
  readonly members: (what: string, member: (name: string, at: number) => void) => void;
  /** Demands that nothing but white space is left. */
  readonly end: (what: string) => void;
}

const [QUOTE, BACKSLASH, SPACE] = [0x22, 0x5c, 0x20];

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ...['"', "\\", "/"].map((mark) => [mark, mark] as const),
  ...Object.entries({ b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }),
]);

/**
 * Makes a scanner, strict as RFC 8259 is, and stricter: lone surrogates, repeated names and integers in any other
 * spelling than plain digits are refused. Its time is linear in the length of the text.
 *
 * @param text the text
 * @param refuse throws
 * @returns a scanner at the start of the text
 */
export function scan(text: string, refuse: Refuse): Scanner {
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
  const demand = (mark: string, wanted: string): void => {
    if (!take(mark)) refuse(wanted, next(), at);
  };

  const hex = (from: number): number => {
    const digits = text.slice(from, from + 4);
    return /^[\da-f]{4}$/i.test(digits) ? parseInt(digits, 16) : NaN;
  };
  const escape = (what: string): string => {
    const from = at;
    const simple = ESCAPES.get(text[from + 1]);
    at += simple === undefined ? 6 : 2;
    if (simple !== undefined) return simple;
    const unit = text[from + 1] === "u" ? hex(from + 2) : NaN;
    if (Number.isNaN(unit)) {
      const length = text[from + 1] === "u" ? 6 : 2;
      refuse(`${what} must have no other escapes than JSON's`, quoteFrom(from, length), from);
    }
    if (unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit);
    const low = text.startsWith("\\u", at) ? hex(at + 2) : NaN;
    if (unit > 0xdbff || !(low >= 0xdc00 && low <= 0xdfff)) {
      refuse(`${what} must have no lone surrogate`, quoteFrom(from, 6), from);
    }
    at += 6;
    return String.fromCharCode(unit, low);
  };
  const quoteFrom = (from: number, length: number) => quote(text.slice(from, from + length));

  // By hand: a regular expression with alternatives under a star keeps a stack that long strings overflow.
  const string = (what: string): string => {
    demand('"', `${what} must be a string`);
    let whole = "";
    for (let from = at;;) {
      const unit = text.charCodeAt(at);
      if (unit === QUOTE) return whole + text.slice(from, at++);
      if (unit === BACKSLASH) {
        whole += text.slice(from, at) + escape(what);
        from = at;
      } else if (unit >= SPACE) at++;
      else if (at >= text.length) refuse(`${what} must end with a quote`, next(), at);
      else refuse(`${what} must have its control characters escaped`, next(), at);
    }
  };

  const token = /[-+.\w]{0,17}/y;
  const integer = (what: string): number => {
    token.lastIndex = position();
    const [digits] = token.exec(text) as RegExpExecArray;
    const value = /^(?:0|[1-9]\d*)$/.test(digits) ? Number(digits) : NaN;
    if (!Number.isSafeInteger(value)) {
      refuse(
        `${what} must have integers from 0 to 2^53 - 1, in plain digits`,
        digits === "" ? next() : quote(digits),
        at,
      );
    }
    at += digits.length;
    return value;
  };
  const integers = (what: string): number[] => {
    demand("[", `${what} must be a list`);
    const values: number[] = [];
    if (take("]")) return values;
    do values.push(integer(what)); while (take(","));
    demand("]", `"," or "]" must come next in ${what}`);
    return values;
  };

  const members = (what: string, member: (name: string, at: number) => void): void => {
    demand("{", `${what} must be an object`);
    if (take("}")) return;
    const names = new Set<string>();
    do {
      const from = position();
      const name = string(`a name in ${what}`);
      if (names.has(name)) refuse(`names in ${what} must differ`, `${quote(name)} again`, from);
      names.add(name);
      demand(":", `":" must follow a name in ${what}`);
      member(name, from);
    } while (take(","));
    demand("}", `"," or "}" must come next in ${what}`);
  };
  const end = (what: string): void => {
    if (position() < text.length) refuse(`nothing but white space must follow ${what}`, next(), at);
  };

  return Object.freeze({ position, string, integers, members, end });
}
