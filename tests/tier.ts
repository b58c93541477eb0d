/**
 * What a run of the tests covers: quick is what every change is tried with, full is everything. Which of the two it is
 * is chosen here alone; which tests belong to which, each kit says.
 */

import type { Kit } from "./kit.ts";

/** The runs that a kit's tests are part of: every run, or the full one alone. */
export type Tier = "quick" | "full";

/** The environment's choice, `SYNCBN_TIER=full`; otherwise quick, as when the tests may not read the environment. */
function chosen(): Tier {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "SYNCBN_TIER" });
  return state === "granted" && Deno.env.get("SYNCBN_TIER") === "full" ? "full" : "quick";
}

/** The tier of this run. */
export const TIER: Tier = chosen();

/** Whether tests of a tier are part of this run. */
export function isRun(tier: Tier = "quick"): boolean {
  return TIER === "full" || tier === "quick";
}

/** Marks the one ignored test that stands for what a quick run leaves out of a kit; the number is of its tests. */
export const LEFT_OUT = /: (\d+) tests? left to the full tier$/;

/**
 * Registers tests of a kit where its tier is part of this run; otherwise one ignored test, which says how many they are.
 *
 * @param kit whose tests they are
 * @param body registers them with the kit that it is given
 */
export function inTier<K extends Kit>(kit: K, body: (kit: K) => void): void {
  if (isRun(kit.tier)) return body(kit);
  let count = 0;
  body({ ...kit, register: () => void count++ });
  const noun = count === 1 ? "test" : "tests";
  Deno.test.ignore(`${kit.name}: ${count} ${noun} left to the full tier`, () => {});
}

/** Registers tests of no kit, in a file of full/: ignored where the machine lacks what they need. */
export function fullTests(
  name: string,
): (
  what: string,
  body: () => void | Promise<void>,
  options?: { readonly ignore?: boolean },
) => void {
  return (what, body, { ignore = false } = {}) =>
    inTier({ name, tier: "full" }, ({ register = Deno.test }: Kit) => {
      if (ignore && isRun("full")) Deno.test.ignore(`${name}: ${what}`, body);
      else register(`${name}: ${what}`, body);
    });
}
