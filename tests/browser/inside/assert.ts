/** What the tests use of node:assert/strict, where there is no Node. tests/browser_assert_test.ts compares the two. */

/** A failed assertion. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** What a thrown error must be: its class, its text, some of its fields, or what a function says of it. */
type Wanted =
  | RegExp
  | (abstract new (...args: never[]) => unknown)
  | ((error: unknown) => boolean)
  | object;
type Message = string | Error;

function fail(message: Message | undefined, text: string): never {
  if (message instanceof Error) throw message;
  throw new AssertionError(message === undefined ? text : `${message} (${text})`);
}

/** A value in a message. */
function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value !== "object" || value === null) return String(value);
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const { length } = value as Uint8Array;
    const first = Array.from((value as Uint8Array).subarray(0, 12));
    return `${value.constructor.name}(${length}) [${first}${length > 12 ? ", ..." : ""}]`;
  }
  try {
    const plain = (_: string, part: unknown) =>
      typeof part === "bigint" || typeof part === "number" && !Number.isFinite(part)
        ? String(part)
        : part;
    return JSON.stringify(value, plain).slice(0, 2000);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

type Pairs = Map<object, object>;

/** Whether two values are the same all the way down, prototypes, NaN and the sign of zero included. */
function same(a: unknown, b: unknown, seen: Pairs = new Map()): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  if (seen.get(a) === b) return true;
  seen.set(a, b);
  return sameContents(a, b, seen) && sameFields(a, b, seen);
}

/** What is not in fields. */
function sameContents(a: object, b: object, seen: Pairs): boolean {
  if (a instanceof Map) {
    const other = b as typeof a;
    return a.size === other.size &&
      [...a].every(([key, value]) =>
        other.has(key)
          ? same(value, other.get(key), seen)
          : [...other].some((entry) => same([key, value], entry, seen))
      );
  }
  if (a instanceof Set) {
    const other = b as typeof a;
    return a.size === other.size &&
      [...a].every((value) => other.has(value) || [...other].some((one) => same(value, one, seen)));
  }
  if (a instanceof ArrayBuffer) return same(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  if (a instanceof Error) {
    const other = b as Error;
    return a.name === other.name && a.message === other.message &&
      same(a.cause, other.cause, seen);
  }
  if (a instanceof Date || a instanceof Number || a instanceof String || a instanceof Boolean) {
    return Object.is(a.valueOf(), b.valueOf());
  }
  return a instanceof RegExp ? String(a) === String(b) : true;
}

/** Own enumerable fields, in any order; of arrays and views the elements. */
function sameFields(a: object, b: object, seen: Pairs): boolean {
  if (ArrayBuffer.isView(a) && !(a instanceof DataView)) {
    const [own, other] = [a as Uint8Array, b as Uint8Array];
    return own.length === other.length && own.every((value, i) => Object.is(value, other[i]));
  }
  if (Array.isArray(a) && a.length !== (b as unknown[]).length) return false;
  const [own, other] = [fieldsOf(a), fieldsOf(b)];
  return own.length === other.length &&
    own.every((key) => Object.hasOwn(b, key) && same(read(a, key), read(b, key), seen));
}

function fieldsOf(value: object): PropertyKey[] {
  const isEnumerable = (key: symbol) => Object.prototype.propertyIsEnumerable.call(value, key);
  return [...Object.keys(value), ...Object.getOwnPropertySymbols(value).filter(isEnumerable)];
}

function read(value: object, key: PropertyKey): unknown {
  return (value as Record<PropertyKey, unknown>)[key];
}

function isClass(wanted: Wanted): wanted is abstract new () => unknown {
  return typeof wanted === "function" && wanted.prototype !== undefined;
}

/** Fails unless a thrown error is what was wanted. */
function checkThrown(error: unknown, wanted: Wanted | undefined, message?: Message): void {
  if (wanted === undefined) return;
  if (wanted instanceof RegExp) {
    if (wanted.test(String(error))) return;
    fail(message, `${shown(error)} does not match ${wanted}`);
  }
  if (isClass(wanted) && error instanceof wanted) return;
  if (typeof wanted === "function") {
    // A class that the error is not of; of other functions the word counts.
    if (isClass(wanted) && (wanted as unknown) === Error || isErrorClass(wanted)) throw error;
    if ((wanted as (error: unknown) => boolean)(error) === true) return;
    fail(message, `the function did not return true for ${shown(error)}`);
  }
  const keys = Object.keys(wanted);
  if (wanted instanceof Error) keys.push("name", "message");
  for (const key of keys) {
    const [is, should] = [read(error as object, key), read(wanted, key)];
    const matches = should instanceof RegExp && typeof is === "string"
      ? should.test(is)
      : same(is, should);
    if (!matches) fail(message, `the error's ${key} is ${shown(is)} instead of ${shown(should)}`);
  }
}

function isErrorClass(wanted: Wanted): boolean {
  return typeof wanted === "function" && wanted.prototype instanceof Error;
}

function assert(value: unknown, message?: Message): asserts value {
  if (!value) fail(message, `${shown(value)} is not true`);
}

const isMessage = (value: unknown): value is string => typeof value === "string";

/** The functions of the module. */
const functions = {
  ok: assert,
  fail: (message: Message = "Failed"): never => fail(message, "failed"),
  equal: (a: unknown, b: unknown, message?: Message): void => {
    if (!Object.is(a, b)) fail(message, `${shown(a)} instead of ${shown(b)}`);
  },
  notEqual: (a: unknown, b: unknown, message?: Message): void => {
    if (Object.is(a, b)) fail(message, `it should not be ${shown(a)}`);
  },
  deepEqual: (a: unknown, b: unknown, message?: Message): void => {
    if (!same(a, b)) fail(message, `${shown(a)} instead of ${shown(b)}`);
  },
  notDeepEqual: (a: unknown, b: unknown, message?: Message): void => {
    if (same(a, b)) fail(message, `it should not be ${shown(a)}`);
  },
  match: (text: string, pattern: RegExp, message?: Message): void => {
    if (!isMessage(text) || !pattern.test(text)) {
      fail(message, `${shown(text)} does not match ${pattern}`);
    }
  },
  doesNotMatch: (text: string, pattern: RegExp, message?: Message): void => {
    if (!isMessage(text) || pattern.test(text)) fail(message, `${shown(text)} matches ${pattern}`);
  },
  throws: (body: () => unknown, wanted?: Wanted | string, message?: Message): void => {
    let thrown: { readonly error: unknown } | null = null;
    try {
      body();
    } catch (error) {
      thrown = { error };
    }
    checkOutcome(thrown, wanted, message);
  },
  rejects: async (
    promise: Promise<unknown> | (() => Promise<unknown>),
    wanted?: Wanted | string,
    message?: Message,
  ): Promise<void> => {
    let thrown: { readonly error: unknown } | null = null;
    try {
      await (typeof promise === "function" ? promise() : promise);
    } catch (error) {
      thrown = { error };
    }
    checkOutcome(thrown, wanted, message);
  },
};

function checkOutcome(
  thrown: { readonly error: unknown } | null,
  wanted: Wanted | string | undefined,
  message?: Message,
): void {
  if (!thrown) fail(isMessage(wanted) ? wanted : message, "nothing was thrown");
  if (!isMessage(wanted)) checkThrown(thrown.error, wanted, message);
}

export default Object.assign(assert, functions);
