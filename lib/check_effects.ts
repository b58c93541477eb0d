/**
 * What every call is checked for of its effects: a device, a group, a signal, options by their names.
 *
 * @module
 */

import type { BlockingGroup, CollectiveOptions, ProcessGroup, ReduceGroup } from "./collectives.ts";
import { CollectiveError } from "./errors.ts";
import { mistaken, shown } from "./words.ts";

/** Checks that the effects hold a device. */
export function checkDevice<E extends { readonly device: { readonly info: object } }>(
  effects: E,
  action: string,
): E {
  if (typeof effects?.device?.info === "object") return effects;
  throw new TypeError(
    `Cannot ${action} as effects must be { device }, with group or groups where ranks share: ` +
      `current value holds no device${mistaken(effects)}`,
  );
}

/**
 * Checks the group of a synchronised call, and that the call is still wanted where no collective would ask. `needs` is the
 * collective that the call needs, and where the caller gave the group.
 */
export function checkGroup<G extends Pick<ReduceGroup, "worldSize">>(
  group: G,
  options: Pick<CollectiveOptions, "signal">,
  action: string,
  needs: {
    readonly collective?: keyof ProcessGroup | keyof BlockingGroup;
    readonly name?: string;
  } = {},
): G {
  const { collective = "allReduce", name = "effects.group" } = needs;
  if (
    typeof (group as Partial<ProcessGroup & BlockingGroup> | null | undefined)?.[collective] !==
      "function"
  ) {
    throw new TypeError(
      `Cannot ${action} as ${name} must be { worldSize, ${collective} }: current value holds ${
        Object.keys(group ?? {}).join(", ") || "nothing"
      }`,
    );
  }
  const { worldSize } = group;
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    throw new RangeError(
      `Cannot ${action} as the group's worldSize must be an integer >= 1: ` +
        `current value is ${worldSize}`,
    );
  }
  const signal = options?.signal;
  if (worldSize === 1 && signal?.aborted) {
    throw new CollectiveError(`Cannot ${action} as it was cancelled`, "cancelled", [0], {
      cause: signal.reason,
    });
  }
  return group;
}

/**
 * Checks the group of effects that hold a device too. What is wrong with the device alone is found in the call's turn, so
 * that all ranks hear of it; where there is no group either, it is the likelier slip.
 */
export function groupIn<G extends Pick<ReduceGroup, "worldSize">>(
  effects: { readonly device: { readonly info: object }; readonly group: G },
  options: Pick<CollectiveOptions, "signal">,
  action: string,
  collective: keyof ProcessGroup | keyof BlockingGroup = "allReduce",
): G {
  if (effects?.group === undefined) checkDevice(effects, action);
  return checkGroup(effects?.group, options, action, { collective });
}

/**
 * Checks the signal of a call, in the call's own turn, so that all ranks hear of a wrong one: the collective is not given it.
 */
export function checkSignal(signal: AbortSignal | undefined, action: string): void {
  if (signal === undefined || isSignal(signal)) return;
  throw new TypeError(
    `Cannot ${action} as signal must be an AbortSignal or left out: current value is ${
      shown(signal)
    }`,
  );
}

/** The signal of a call as a collective is given it: what is none is left out, since {@linkcode checkSignal} tells of it. */
export function signalIn(options: Pick<CollectiveOptions, "signal">): AbortSignal | undefined {
  return isSignal(options?.signal) ? options.signal : undefined;
}

/** Whether a value is a signal, of whatever realm. */
function isSignal(value: unknown): value is AbortSignal {
  return typeof (value as AbortSignal | null | undefined)?.addEventListener === "function";
}

/** Checks that options are a record of known names: a misspelt one must not be skipped in silence. */
export function checkOptions(options: object, known: readonly string[], action: string): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `Cannot ${action} as options must be a record: current value is ${shown(options)}`,
    );
  }
  for (const name in options) {
    if (known.includes(name)) continue;
    throw new TypeError(
      `Cannot ${action} as options may be ${known.join(", ")}: current one is ${shown(name)}`,
    );
  }
}
