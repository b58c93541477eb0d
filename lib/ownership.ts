/**
 * Ownership of arrays on a device: who allocates, frees; results belong to the caller.
 *
 * A tree here is any nesting of plain records, arrays and Maps with arrays of a device at its leaves, such as tensors,
 * states, residuals and whole models.
 *
 * @module
 */

import type { Device, FusedOperations, GradientArrays } from "./device.ts";

/**
 * Runs a body and frees what it allocated and did not return.
 *
 * The body gets a derived handle on the device: what is allocated through it belongs to the region, and everything not
 * reachable from the result is freed when the body ends, by a result or by an error. There is no hidden stack, so
 * ranks that interleave at awaits do not disturb each other.
 *
 * @param device the device, or another region's handle
 * @param body what to do with the derived handle; may be asynchronous
 * @returns the body's result
 * @throws what the body throws, after everything it allocated is freed; TypeError for a launch after its end
 *
 * @example Only the sum survives
 * ```ts
 * import { addScaled, referenceDevice, region } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const total = region(device, (scope) => {
 *   const a = scope.upload(Float32Array.of(1, 2));
 *   const b = scope.upload(Float32Array.of(3, 4));
 *   return addScaled(scope, a, b, 1);
 * });
 * console.assert(device.owns(total));
 * ```
 */
export function region<A, R>(device: Device<A>, body: (device: Device<A>) => R): R {
  const owned = new Set<A>();
  let open = true;
  const end = (result: unknown): void => {
    open = false;
    if (owned.size === 0) return;
    for (const array of arraysIn(result, (value): value is A => owned.has(value as A))) {
      owned.delete(array);
    }
    device.free(...owned);
  };
  const scope = derive(device, {
    own: (array) => {
      if (!open) {
        device.free(array);
        throw new TypeError(
          "Cannot allocate in the region as its body has ended: await all work before returning",
        );
      }
      owned.add(array);
      return array;
    },
    disown: (array) => owned.delete(array),
  });
  let result: R;
  try {
    result = body(scope);
  } catch (error) {
    end(undefined);
    throw error;
  }
  if (!isPromise(result)) {
    end(result);
    return result;
  }
  return result.then(
    (value) => {
      end(value);
      return value;
    },
    (error) => {
      end(undefined);
      throw error;
    },
  ) as R;
}

/**
 * Launches everything a synchronous body does at once: one encoder and one submit on a GPU, nothing special elsewhere.
 *
 * @param device the device
 * @param body what to launch, through the handle it is given; promises of readbacks may stand inside its result
 * @returns the body's result
 * @throws what the body throws; TypeError where the body returns a promise, since launches after an await would miss
 * the batch
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
  const synchronous = (inner: Device<A>): R => {
    const result = body(inner);
    if (!isPromise(result)) return result;
    result.then(undefined, () => {});
    throw new TypeError(
      "Cannot batch an asynchronous body: launch everything before the first await, " +
        "and return promises of readbacks inside a record",
    );
  };
  return device.batch ? device.batch(synchronous) : synchronous(device);
}

/**
 * Frees the arrays of a tree, except those reachable from another.
 *
 * @param device the device; arrays of other devices and arrays already freed are left alone
 * @param dead the tree whose arrays are no longer needed
 * @param options `keep`: a tree whose arrays are; a new state shares unchanged vectors with the old one, and residuals
 * borrow the input and the weight
 *
 * @example Going on with the new state
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, release, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1);
 * const x = tensor(device, [1, 2], [2, 1]);
 * const { output, state: next, residuals } = batchNormForward(state, x, { device });
 * release(device, [state, residuals], { keep: [next, x] });
 * console.assert(device.owns(next.weight) && !device.owns(state.runningMean));
 * ```
 */
export function release<A>(
  device: Pick<Device<A>, "owns" | "free">,
  dead: unknown,
  options: { readonly keep?: unknown } = {},
): void {
  const doomed = arraysIn(dead, device.owns);
  for (const array of arraysIn(options.keep, device.owns)) doomed.delete(array);
  device.free(...doomed);
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** Arrays in a tree; descends into plain records, arrays and Maps only, and survives cycles. */
function arraysIn<A>(tree: unknown, isArray: (value: unknown) => value is A): Set<A> {
  const found = new Set<A>();
  const seen = new Set<unknown>();
  const pending = [tree];
  while (pending.length > 0) {
    const node = pending.pop();
    if (typeof node !== "object" || node === null || seen.has(node)) continue;
    seen.add(node);
    if (isArray(node)) found.add(node);
    else if (Array.isArray(node)) pending.push(...node);
    else if (node instanceof Map) pending.push(...node.values());
    else if (isPlain(node)) pending.push(...Object.values(node));
  }
  return found;
}

function isPlain(node: object): boolean {
  const prototype = Object.getPrototypeOf(node);
  return prototype === Object.prototype || prototype === null;
}

interface Owner<A> {
  readonly own: (array: A) => A;
  readonly disown: (array: A) => void;
}

/** The same device, telling an owner of every array that it makes or frees. */
function derive<A>(device: Device<A>, owner: Owner<A>): Device<A> {
  const { own, disown } = owner;
  const ownGradients = (gradients: GradientArrays<A>): GradientArrays<A> => {
    own(gradients.gradInput);
    if (gradients.gradWeight !== null) own(gradients.gradWeight);
    if (gradients.gradBias !== null) own(gradients.gradBias);
    return gradients;
  };
  const { fused, batch } = device;
  return Object.freeze(
    {
      ...device,
      free: (...arrays) => {
        device.free(...arrays);
        arrays.forEach(disown);
      },
      upload: (values, dtype) => own(device.upload(values, dtype)),
      moments: (input) => own(device.moments(input)),
      momentsFromWire: (wire) => own(device.momentsFromWire(wire)),
      normalize: (...args) => own(device.normalize(...args)),
      updateRunningStats: (...args) => {
        const running = device.updateRunningStats(...args);
        own(running.runningMean);
        own(running.runningVar);
        return running;
      },
      gradientSums: (...args) => own(device.gradientSums(...args)),
      sumsFromWire: (wire) => own(device.sumsFromWire(wire)),
      gradients: (...args) => ownGradients(device.gradients(...args)),
      addScaled: (...args) => own(device.addScaled(...args)),
      relu: (x) => own(device.relu(x)),
      gate: (...args) => own(device.gate(...args)),
      ...(batch &&
        { batch: <R>(body: (d: Device<A>) => R) => batch((d) => body(derive(d, owner))) }),
      ...(fused && { fused: deriveFused(fused, own, ownGradients) }),
    } satisfies Device<A>,
  );
}

function deriveFused<A>(
  fused: FusedOperations<A>,
  own: (array: A) => A,
  ownGradients: (gradients: GradientArrays<A>) => GradientArrays<A>,
): FusedOperations<A> {
  return {
    normalize: (...args) => own(fused.normalize(...args)),
    gradientSums: (...args) => own(fused.gradientSums(...args)),
    gradients: (...args) => ownGradients(fused.gradients(...args)),
  };
}
