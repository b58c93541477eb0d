/** What every call is checked for of its effects: a device, a group, a signal, options by their names. */

import { checkInteger } from "./check_value.ts";
import type { BlockingGroup, CollectiveOptions, ProcessGroup, ReduceGroup } from "./collectives.ts";
import { CollectiveError } from "./errors.ts";
import { mistaken, refused, shown, wrongKind } from "./words.ts";

/** Tells whether the effects hold a device. */
export function holdsDevice(effects: { readonly device: { readonly info: object } }): boolean {
  return typeof effects?.device?.info === "object";
}

/** Checks that the effects hold a device. */
export function checkDevice<E extends { readonly device: { readonly info: object } }>(
  effects: E,
  action: string,
): E {
  if (holdsDevice(effects)) return effects;
  const wanted = "effects must be { device }, with group or groups where ranks share";
  throw refused(action, wanted, `value holds no device${mistaken(effects)}`);
}

/** Checks that a value is a device, by what the call needs of it, where it is an argument of its own. */
export function checkHandle(device: unknown, needed: string, action: string): void {
  const { [needed]: operation } = Object(device);
  if (typeof operation === "function") return;
  throw refused(action, "its first argument must be a device", `value is ${shown(device)}`);
}

/** Checks that a value is a function. */
export function checkFunction(value: unknown, name: string, action: string): void {
  if (typeof value !== "function") throw wrongKind(action, `${name} must be a function`, value);
}

interface Needs {
  readonly collective?: keyof ProcessGroup | keyof BlockingGroup;
  readonly name?: string;
}

/** Checks the group of a synchronised call, and that the call is still wanted where no collective would ask. */
export function checkGroup<G extends Pick<ReduceGroup, "worldSize">>(
  group: G,
  options: Pick<CollectiveOptions, "signal">,
  action: string,
  { collective = "allReduce", name = "effects.group" }: Needs = {},
): G {
  if (typeof (group as Partial<ProcessGroup> | null | undefined)?.[collective] !== "function") {
    const held = Object.keys(group ?? {}).join(", ") || "nothing";
    throw refused(action, `${name} must be { worldSize, ${collective} }`, `value holds ${held}`);
  }
  checkInteger(group.worldSize, "the group's worldSize", action, 1);
  const signal = options?.signal;
  if (group.worldSize > 1 || !signal?.aborted) return group;
  const { reason: cause } = signal;
  throw new CollectiveError(`Cannot ${action} as it was cancelled`, "cancelled", [0], { cause });
}

/** Checks the group of effects that hold a device too, whose own slips are found in the call's turn: all ranks hear of them. */
export function groupIn<G extends Pick<ReduceGroup, "worldSize">>(
  effects: { readonly device: { readonly info: object }; readonly group: G },
  options: Pick<CollectiveOptions, "signal">,
  action: string,
  collective?: Needs["collective"],
): G {
  if (effects?.group === undefined) checkDevice(effects, action);
  return checkGroup(effects?.group, options, action, { collective });
}

/** Checks the signal of a call in its turn, so that all ranks hear of a wrong one: the collective is not given it. */
export function checkSignal(signal: AbortSignal | undefined, action: string): void {
  if (signal === undefined || isSignal(signal)) return;
  throw wrongKind(action, "signal must be an AbortSignal or left out", signal);
}

/** The signal of a call as a collective is given it: what is none is left out, since {@linkcode checkSignal} tells of it. */
export function signalIn(options: Pick<CollectiveOptions, "signal">): AbortSignal | undefined {
  return isSignal(options?.signal) ? options.signal : undefined;
}

/** Whether a value is a signal, of whatever realm. */
const isSignal = (value: unknown): value is AbortSignal =>
  typeof (value as AbortSignal | null | undefined)?.addEventListener === "function";

/** Checks that options are a record: no list, and no promise of one. */
export function checkGiven(options: object, action: string): void {
  const isRecord = typeof options === "object" && options !== null;
  if (isRecord && !("then" in options || Symbol.iterator in options)) return;
  throw wrongKind(action, "options must be a record", options);
}

/** Checks that options are a record of known names: a misspelt one must not be skipped in silence. */
export function checkOptions(options: object, known: readonly string[], action: string): void {
  checkGiven(options, action);
  for (const name in options) {
    if (known.includes(name)) continue;
    throw wrongKind(action, `options may be ${known.join(", ")}`, name, "one");
  }
}
