/** Single values of the kinds that many calls take. */

import { shown, wrongKind, wrongValue } from "./words.ts";

/** Checks an integer: a RangeError says what came. */
export function checkInteger(
  value: unknown,
  name: string,
  action: string,
  least: number,
  most = Infinity,
): void {
  if (Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most) return;
  const range = most === Infinity ? `>= ${least}` : `from ${least} to ${most}`;
  throw wrongValue(action, `${name} must be an integer ${range}`, value);
}

/** Checks that a value is one of a few, of which undefined stands for none: a TypeError says what came. */
export function checkOneOf(
  value: unknown,
  choices: readonly unknown[],
  name: string,
  action: string,
): void {
  if (choices.includes(value)) return;
  const texts = choices.map((choice) => choice === undefined ? "left out" : shown(choice));
  const last = texts.pop();
  throw wrongKind(action, `${name} must be ${texts.join(", ")} or ${last}`, value);
}

/** What a setting that is on or off may be. */
export const SWITCH: readonly unknown[] = [true, false, undefined];

/** Checks that a value is a float32 array on the host. */
export function checkFloat32(
  value: unknown,
  name: string,
  action: string,
): asserts value is Float32Array {
  if (value instanceof Float32Array) return;
  throw wrongKind(action, `${name} must be a Float32Array`, value);
}
