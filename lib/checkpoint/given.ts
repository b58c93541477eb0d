/**
 * What a caller gave as named arrays, checked before anything is made of it.
 *
 * @module
 */

import { countBytes, countElements, DTYPES } from "./dtypes.ts";
import type { StoredArray } from "./stored_array.ts";
import { listed, shown } from "../words.ts";

/** Takes a Map or a plain record apart. */
export function entriesOf(
  given: unknown,
  what: string,
  action: string,
): readonly (readonly [name: unknown, value: unknown])[] {
  if (given instanceof Map) return [...given];
  // undefined for what is no object at all: null is the prototype of a record that has none.
  const prototype = typeof given === "object" && given !== null
    ? Object.getPrototypeOf(given)
    : undefined;
  if (prototype === Object.prototype || prototype === null) return Object.entries(given as object);
  throw new TypeError(
    `Cannot ${action} as ${what} must be a Map or a plain record: current value is ${shown(given)}`,
  );
}

/** Checks that a value is a stored array. */
export function checkStored(
  array: unknown,
  what: string,
  action: string,
): asserts array is StoredArray {
  if (typeof array !== "object" || array === null) {
    throw new TypeError(
      `Cannot ${action} as ${what} must be a record of dtype, shape and data: ` +
        `current value is ${shown(array)}`,
    );
  }
  const { dtype, shape, data } = array as Readonly<Record<string, unknown>>;
  const elements = DTYPES.get(dtype as string);
  if (elements === undefined) {
    throw new TypeError(
      `Cannot ${action} as the dtype of ${what} must be one of ${[...DTYPES.keys()].join(" ")}: ` +
        `current value is ${shown(dtype)}`,
    );
  }
  checkShape(shape, what, action);
  if (!(data instanceof elements.array)) {
    throw new TypeError(
      `Cannot ${action} as the data of ${what}, ${dtype}, must be a ${elements.array.name}: ` +
        `current value is ${shown(data)}`,
    );
  }
  const [count, unit] = elements.opaque
    ? [countBytes(countElements(shape), elements), "bytes"]
    : [countElements(shape), "elements"];
  if (data.length !== count) {
    throw new TypeError(
      `Cannot ${action} as ${what} of shape ${listed(shape)} needs ${count} ${unit}: ` +
        `current number of ${unit} is ${data.length}`,
    );
  }
}

function checkShape(
  shape: unknown,
  what: string,
  action: string,
): asserts shape is readonly number[] {
  if (!Array.isArray(shape)) {
    throw new TypeError(
      `Cannot ${action} as the shape of ${what} must be an array: current value is ${shown(shape)}`,
    );
  }
  const extents: readonly unknown[] = shape;
  const odd = extents.findIndex((extent) => !(Number.isSafeInteger(extent) && Number(extent) >= 0));
  if (odd >= 0) {
    throw new RangeError(
      `Cannot ${action} as every extent of ${what} must be an integer from 0 to 2^53 - 1: ` +
        `current value is ${shown(extents[odd])}`,
    );
  }
  if (countElements(shape) === Infinity) {
    throw new RangeError(
      `Cannot ${action} as the extents of ${what} that are not 0 must have a product below 2^53: ` +
        `current value is ${listed(shape)}`,
    );
  }
}
