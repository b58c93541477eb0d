/**
 * Ownership of arrays on a device: who allocates, frees; results belong to the caller.
 *
 * A tree here is any nesting of plain records, arrays, Maps, Sets and objects of classes with arrays of a device at its
 * leaves, such as tensors, states, what forward saved, and whole models.
 *
 * A batch's handle ends with its body, on devices without a queue too: what would miss the submit of a GPU is an error
 * everywhere. `batch` and `region` are for users, and `region` for those of the library's own functions that make much beside
 * their results. The others `compose`, and free by name what they do not return, since walking the results in search of it was
 * a third of what a small call cost.
 */

import { checkHandle, checkOptions } from "./check_effects.ts";
import { arraysIn, derive } from "./derived.ts";
import type { Device } from "./device.ts";
import { reach } from "./tree.ts";
import { wrongPair } from "./words.ts";

/** Options of {@linkcode region}. */
export interface RegionOptions {
  /**
   * A tree that the result replaces, such as the state before a step: what of it cannot be reached from the result is freed
   * once the body has succeeded. After an error it is still there. It must be nobody else's: ranks that share a device begin
   * with a state each.
   */
  readonly replace?: unknown;
}

/**
 * Runs a body and frees what it allocated and did not return.
 *
 * The body gets a derived handle on the device: what is allocated through it belongs to the region, and everything not
 * reachable from the result is freed when the body ends, by a result or by an error. Reachable is what stands in records,
 * arrays, Maps, Sets and fields of objects, nested as they may be; not what a private field, a getter or a closure holds.
 * There is no hidden stack, so ranks that interleave at awaits do not disturb each other.
 *
 * @param device the device, or another region's handle
 * @param body what to do with the derived handle; may be asynchronous
 * @returns the body's result
 * @throws what the body throws, after everything it allocated is freed; a launch through the derived handle after the
 * body's end is a TypeError
 *
 * @example A loop whose memory does not grow
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, region, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * let state = initBatchNorm(device, 1);
 * for (const batch of [[1, 2], [3, 5]]) {
 *   const step = (scope: typeof device) =>
 *     batchNormForward(state, tensor(scope, batch, [2, 1]), { device: scope }).state;
 *   state = region(device, step, { replace: state });
 * }
 * console.assert(state.numBatchesTracked === 2);
 * ```
 */
export function region<A, R>(
  device: Device<A>,
  body: (device: Device<A>) => R,
  options: RegionOptions = {},
): R {
  const action = "open the region";
  checkOptions(options, ["replace"], action);
  checkBody(device, body, action);
  const owned = new Set<A>();
  let open = true;
  const end = (result: unknown): void => {
    open = false;
    if (owned.size === 0) return;
    // What is reachable is the caller's from here on; once that is everything, there is nothing left to look for.
    reach(result, (node) => owned.delete(node as A) || device.owns(node), () => owned.size > 0);
    if (owned.size > 0) freeAll(device, owned);
  };
  const scope = derive(device, {
    check: () => checkOpen(open, "in the region"),
    returned: (result) => {
      for (const array of arraysIn(device, result)) owned.add(array);
    },
    disown: (array) => owned.delete(array),
  });
  const fail = (error: unknown): never => {
    open = false;
    abandon(device, owned);
    throw error;
  };
  let result: R;
  try {
    result = body(scope);
  } catch (error) {
    return fail(error);
  }
  const succeed = <T>(value: T): T => {
    end(value);
    if (options.replace !== undefined) release(device, options.replace, { keep: value });
    return value;
  };
  return isPromise(result) ? result.then(succeed, fail) as R : succeed(result);
}

/**
 * Launches everything a synchronous body does at once: one encoder and one submit on a GPU, nothing special elsewhere.
 *
 * Launch only through the handle that the body is given, and only while it runs. A batch within a batch joins it.
 *
 * @param device the device, or a region's or another batch's handle
 * @param body what to launch; promises of readbacks may stand inside its result
 * @returns the body's result
 * @throws what the body throws, after everything it allocated is freed; TypeError where the body returns a promise, or
 * launches after its end
 *
 * @example Two steps of an optimiser in one submit
 * ```ts
 * import { addScaled, batch, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = device.upload(Float32Array.of(1, 2));
 * const [twice, thrice] = batch(device, (d) => [addScaled(d, x, x, 1), addScaled(d, x, x, 2)]);
 * ```
 */
export function batch<A, R>(device: Device<A>, body: (device: Device<A>) => R): R {
  checkBody(device, body, "batch");
  return compose(device, (inner) => {
    let open = true;
    const check = () => checkOpen(open, "in the batch");
    try {
      const result = body(derive(inner, { check, returned: () => {}, disown: () => {} }));
      if (!isPromise(result)) return result;
      result.then(undefined, () => {});
      throw new TypeError(
        "Cannot batch an asynchronous body: launch all before the first await, " +
          "and return promises of readbacks inside a record",
      );
    } finally {
      open = false;
    }
  });
}

/** Launches at once what a synchronous body composes of operations; where it throws, what they made is freed. */
export function compose<A, R>(device: Device<A>, body: (device: Device<A>) => R): R {
  const whole = (inner: Device<A>): R =>
    inner.allOrNothing ? inner.allOrNothing(() => body(inner)) : noted(inner, body);
  return device.batch ? device.batch(whole) : whole(device);
}

/** What {@linkcode compose} does on a device that does not note itself what it makes. */
function noted<A, R>(device: Device<A>, body: (device: Device<A>) => R): R {
  const results: unknown[] = [];
  const returned = (result: unknown) => void results.push(result);
  try {
    return body(derive(device, { check: () => {}, returned, disown: () => {} }));
  } catch (error) {
    abandon(device, results.flatMap((result) => arraysIn(device, result)));
    throw error;
  }
}

/**
 * Frees the arrays of a tree, except those reachable from another.
 *
 * @param device the device; arrays of other devices and arrays already freed are left alone
 * @param dead the tree whose arrays are no longer needed: records, arrays, Maps, Sets and objects, nested as they may be
 * @param options `keep`: a tree whose arrays are; a new state shares unchanged vectors with the old one, and what
 * forward saved borrows the input, the weight and the bias, with an activation the output too
 *
 * @example Going on with the new state
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, release, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1);
 * const x = tensor(device, [1, 2], [2, 1]);
 * const { output, state: next, saved } = batchNormForward(state, x, { device });
 * release(device, [state, saved], { keep: [next, x] });
 * console.assert(device.owns(next.weight) && !device.owns(state.runningMean));
 * ```
 */
export function release<A>(
  device: Pick<Device<A>, "owns" | "free">,
  dead: unknown,
  options: { readonly keep?: unknown } = {},
): void {
  const action = "release the arrays";
  checkOptions(options, ["keep"], action);
  checkHandle(device, "free", action);
  const doomed = new Set<A>();
  reach(dead, (node) => device.owns(node) && doomed.add(node) !== undefined);
  reach(
    options.keep,
    (node) => doomed.delete(node as A) || device.owns(node),
    () => doomed.size > 0,
  );
  freeAll(device, doomed);
}

/** Frees what is still alive, all of it though one may fail, and then throws the first failure. */
function freeAll<A>(device: Pick<Device<A>, "owns" | "free">, arrays: Iterable<A>): void {
  const failures: unknown[] = [];
  for (const array of [...arrays]) {
    try {
      if (device.owns(array)) device.free(array);
    } catch (failure) {
      failures.push(failure);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** Frees what is still alive after an error, which says more than a failure to clean up could. */
export function abandon<A>(
  device: Pick<Device<A>, "owns" | "free">,
  arrays: Iterable<A>,
): void {
  try {
    freeAll(device, arrays);
  } catch {
    // The device has failed for the reason that the error gives.
  }
}

function checkBody<A>(device: Partial<Device<A>>, body: unknown, action: string): void {
  if (typeof body === "function" && device?.describe) return;
  throw wrongPair(action, "it takes a device and a body", device, body);
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

function checkOpen(open: boolean, where: string): void {
  if (open) return;
  throw new TypeError(
    `Cannot launch ${where} as its body has ended: keep its device within the body, ` +
      `and await all work before returning`,
  );
}
