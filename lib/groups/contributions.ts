/**
 * What ranks bring to a collective: how it is checked, folded, and how its failures read. Shared by all engines.
 *
 * @module
 */

import type { Combine } from "../collectives.ts";

/**
 * Checks that a rank's contribution is what collectives carry.
 *
 * @param values what the rank brought
 * @param name the call, for the message
 * @returns a copy, so that the rank may go on writing to its own
 * @throws TypeError where it is no Float64Array
 */
export function copyContribution(values: Float64Array, name: string): Float64Array {
  if (values instanceof Float64Array) return values.slice();
  throw new TypeError(
    `Cannot call ${name} as its values must be a Float64Array: current value is ${display(values)}`,
  );
}

/**
 * Folds the contributions of all ranks in rank order.
 *
 * @param all the contributions, at least one
 * @param combine folds two into one of the same length
 * @returns a new array
 * @throws what combine throws, and TypeError where it returns something else
 */
export function fold(all: readonly Float64Array[], combine: Combine): Float64Array {
  const total = all.reduce((a, b) => combine(a, b));
  if (total instanceof Float64Array && total.length === all[0].length) return total.slice();
  throw new TypeError(
    `Cannot combine the values as ${
      combine.name || "the function"
    } must return a Float64Array of ` +
      `${all[0].length} values: current value is ${display(total)}`,
  );
}

/**
 * Says what a thrown value says, whatever it is.
 *
 * @param error what was thrown
 * @returns its message, never empty
 */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : display(error)) || "no message";
}

function display(value: unknown): string {
  if (ArrayBuffer.isView(value)) return `${value.constructor.name} of ${value.byteLength} bytes`;
  try {
    return String(value);
  } catch {
    return "an object without a text";
  }
}
