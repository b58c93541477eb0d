/**
 * Command lines: flags as data, of which both what is read and what `--help` prints are made.
 *
 * @module
 */

import { wrap } from "./wrap.ts";

/** One flag. */
export interface Flag<T> {
  /** What stands for its value in `--help`; null for a switch, which takes none. */
  readonly takes: string | null;
  /** What it is for. */
  readonly help: string;
  /** What its value must be, as in "must be an integer". */
  readonly wanted: string;
  /** What it is where it is left out. */
  readonly usual: T;
  /** Reads its value; undefined where that is not what is wanted. */
  readonly read: (value: string) => T | undefined;
}

/** Flags by the names that they have after `--`. */
export type Flags<T> = { readonly [K in keyof T]: Flag<T[K]> };

/** Arguments that are no flags. */
export interface Operands {
  /** What stands for each in `--help`. */
  readonly takes: string;
  /** What they are. */
  readonly help: string;
  /** How many there must be. */
  readonly least: number;
  /** How many there may be. */
  readonly most: number;
}

/** A program as its users see it. */
export interface Program<T> {
  /** How it is started, as in `deno task demo`. */
  readonly usage: string;
  /** What it does, as in "Cannot start the demo as ...". */
  readonly action: string;
  /** What it does, in lines of at most 100 characters. */
  readonly about: string;
  /** What it takes; `--help` comes of itself. */
  readonly flags: Flags<T>;
  /** Arguments without a flag; none where this is left out. */
  readonly operands?: Operands;
  /** What else there is to say, in lines of at most 100 characters. */
  readonly notes?: string;
}

/** What a command line asks for; `"wrong"` comes with the reason. */
export type CommandLine<T> =
  | { readonly kind: "run"; readonly values: Readonly<T>; readonly operands: readonly string[] }
  | { readonly kind: "help" }
  | { readonly kind: "wrong"; readonly reason: string };

const COLUMNS = 100;

/** A whole number in plain digits. Without a usual value it may be left out, and its help says what that means. */
export function integer<U extends number | undefined>(
  { from, to, usual, help }: {
    readonly from: number;
    readonly to: number;
    readonly usual: U;
    readonly help: string;
  },
): Flag<number | U> {
  return Object.freeze({
    ...{ takes: "N", help, usual, wanted: `an integer from ${from} to ${to}` },
    read: (value: string) => {
      const number = /^\d+$/.test(value) ? Number(value) : NaN;
      return number >= from && number <= to ? number : undefined;
    },
  });
}

/** One of several names. Without a usual one it may be left out, and its help says what that means. */
export function oneOf<T extends string, U extends T | undefined>(
  names: readonly T[],
  { usual, help }: { readonly usual: U; readonly help: string },
): Flag<T | U> {
  return Object.freeze({
    ...{ takes: "NAME", help, usual },
    wanted: `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`,
    read: (value: string) => names.find((name) => name === value),
  });
}

/** Any text but none. Without a usual one it may be left out, and its help says what that means. */
export function text<U extends string | undefined>(
  { takes, usual, help }: { readonly takes: string; readonly usual: U; readonly help: string },
): Flag<string | U> {
  return Object.freeze({
    ...{ takes, help, usual, wanted: "a text" },
    read: (value: string) => value === "" ? undefined : value,
  });
}

/** A switch: false, and true where it is given. */
export function on(help: string): Flag<boolean> {
  return Object.freeze({
    ...{ takes: null, help, wanted: "left without a value", usual: false },
    read: () => undefined,
  });
}

/**
 * Reads a command line. Of a flag that is given twice the last value counts.
 *
 * @param program what it takes
 * @param args the arguments, without the program's name
 * @returns what they ask for
 */
export function parseCommandLine<T>(program: Program<T>, args: readonly string[]): CommandLine<T> {
  const flags: Readonly<Record<string, Flag<unknown>>> = program.flags;
  const values = new Map(Object.entries(flags).map(([name, { usual }]) => [name, usual]));
  const operands: string[] = [];
  const rest = args.values();
  for (const arg of rest) {
    if (!arg.startsWith("-")) {
      operands.push(arg);
      continue;
    }
    const [, name = "", given] = /^--([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
    if (name === "help") {
      if (given === undefined) return { kind: "help" };
      return wrong(`--help takes no value: current value is ${JSON.stringify(given)}`);
    }
    if (!Object.hasOwn(flags, name)) {
      const known = [...Object.keys(flags), "help"].join(", --");
      return wrong(`${name ? `--${name}` : arg} is none of --${known}`);
    }
    const { takes, wanted, read } = flags[name];
    if (takes === null) {
      if (given === undefined) values.set(name, true);
      else return wrong(`--${name} takes no value: current value is ${JSON.stringify(given)}`);
      continue;
    }
    const value: string | undefined = given ?? rest.next().value;
    const own = value === undefined ? undefined : read(value);
    if (own === undefined) {
      const current = value === undefined
        ? "it has none"
        : `current value is ${JSON.stringify(value)}`;
      return wrong(`--${name} must be ${wanted}: ${current}`);
    }
    values.set(name, own);
  }
  const { takes, least, most } = program.operands ?? { takes: "", least: 0, most: 0 };
  if (operands.length > most && most === 0) {
    return wrong(`it takes flags only: current argument is ${JSON.stringify(operands[0])}`);
  }
  if (operands.length < least || operands.length > most) {
    const wanted = least === most ? `${least}` : `${least} to ${most}`;
    return wrong(`it takes ${wanted} ${takes}: current number is ${operands.length}`);
  }
  return { kind: "run", values: Object.fromEntries(values) as T, operands };
}

/**
 * Writes what `--help` prints.
 *
 * @param program the program
 * @returns text without a line's end
 */
export function helpOf<T>({ usage, about, flags, operands, notes }: Program<T>): string {
  const entries: (readonly [string, string])[] = [];
  if (operands) entries.push([operands.takes, operands.help]);
  for (const [name, { takes, help, usual }] of Object.entries<Flag<unknown>>(flags)) {
    const known = takes !== null && usual !== undefined;
    entries.push([
      takes === null ? `--${name}` : `--${name} ${takes}`,
      known ? `${help} (${usual})` : help,
    ]);
  }
  entries.push(["--help", "print this"]);
  const indent = 4 + Math.max(...entries.map(([left]) => left.length));
  const lines = entries.flatMap(([left, help]) =>
    wrap(help, COLUMNS - indent).map((line, i) =>
      (i === 0 ? `  ${left}` : "").padEnd(indent) + line
    )
  );
  const takes = operands
    ? ` ${operands.least === 0 ? `[${operands.takes}...]` : operands.takes}`
    : "";
  return [
    about,
    "",
    `Usage: ${usage}${takes} [flags]`,
    "",
    ...lines,
    ...(notes === undefined ? [] : ["", notes]),
  ].join("\n");
}

function wrong(reason: string): { readonly kind: "wrong"; readonly reason: string } {
  return { kind: "wrong", reason: `${reason} (see --help)` };
}
