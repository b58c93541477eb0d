/** What a caller gave as named arrays, checked before anything is made of it. */

import { checkInteger } from "../check_value.ts";
import { countBytes, countElements, DTYPES, type StoredArray } from "./stored_array.ts";
import { isRecord } from "../tree.ts";
import { listed, wrongKind, wrongValue } from "../words.ts";

/** Takes a Map or a plain record apart. */
export function entriesOf(
  given: unknown,
  what: string,
  action: string,
): readonly (readonly [name: unknown, value: unknown])[] {
  if (given instanceof Map) return [...given];
  if (typeof given === "object" && given !== null && isRecord(given)) return Object.entries(given);
  throw wrongKind(action, `${what} must be a Map or a plain record`, given);
}

/** Checks that a value is a stored array. */
export function checkStored(
  array: unknown,
  what: string,
  action: string,
): asserts array is StoredArray {
  if (typeof array !== "object" || array === null) {
    throw wrongKind(action, `${what} must be a record of dtype, shape and data`, array);
  }
  const { dtype, shape, data } = array as Readonly<Record<string, unknown>>;
  const elements = DTYPES.get(dtype as string);
  if (elements === undefined) {
    const names = [...DTYPES.keys()].join(" ");
    throw wrongKind(action, `the dtype of ${what} must be one of ${names}`, dtype);
  }
  checkShape(shape, what, action);
  if (!(data instanceof elements.array)) {
    const { name } = elements.array;
    throw wrongKind(action, `the data of ${what}, ${dtype}, must be a ${name}`, data);
  }
  const elementsIn = countElements(shape);
  const count = elements.opaque ? countBytes(elementsIn, elements) : elementsIn;
  if (data.length === count) return;
  const unit = elements.opaque ? "bytes" : "elements";
  const wanted = `${what} of shape ${listed(shape)} needs ${count} ${unit}`;
  throw wrongKind(action, wanted, data.length, `number of ${unit}`);
}

function checkShape(
  shape: unknown,
  what: string,
  action: string,
): asserts shape is readonly number[] {
  if (!Array.isArray(shape)) {
    throw wrongKind(action, `the shape of ${what} must be an array`, shape);
  }
  for (const extent of shape) checkInteger(extent, `every extent of ${what}`, action, 0);
  if (countElements(shape) !== Infinity) return;
  const wanted = `the extents of ${what} that are not 0 must have a product below 2^53`;
  throw wrongValue(action, wanted, shape, "shape");
}
