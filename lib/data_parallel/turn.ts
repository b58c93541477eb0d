/** A call over a tree, checked in its turn: every rank must call a collective, the one whose arguments are wrong too. */

import { checkDevice, checkOptions, checkSignal } from "../check_effects.ts";
import type { Device } from "../device.ts";
import { region } from "../ownership.ts";
import { type Flat, flatten, type Kind } from "./trees.ts";

/** A tree that is taken apart, or why it is none. */
export interface Turn<A, T> {
  /** The tree, for a label; undefined where there is none. */
  readonly flat: Flat<A, T> | undefined;
  /** Gives the tree, or throws what is wrong with the call. */
  readonly get: () => Flat<A, T>;
}

/** Checks a call and takes its tree apart, but keeps what that throws. */
export function turnOf<A, T>(
  effects: { readonly device: Device<A> },
  tree: T,
  kind: Kind,
  options: { readonly signal?: AbortSignal },
  known: readonly string[] = [],
  check: () => void = () => {},
): Turn<A, T> {
  const { action } = kind;
  try {
    const { device } = checkDevice(effects, action);
    checkOptions(options, [...known, "signal"], action);
    checkSignal(options.signal, action);
    check();
    const flat = flatten<A, T>(device, tree, kind);
    return { flat, get: () => flat };
  } catch (error) {
    const get = () => {
      throw error;
    };
    return { flat: undefined, get };
  }
}

/** Runs a body in a region of the call's device; a rank without a tree has nothing to own. */
export async function inTurn<A, R>(
  { flat }: Turn<A, unknown>,
  device: Device<A>,
  body: (scope: Device<A>) => Promise<R>,
): Promise<R> {
  return await (flat ? region(device, body) : body(device));
}
