/** Devices that watch another device: how often what is called, and what is alive. */

import type { Device } from "../mod.ts";

type Operation = (...args: unknown[]) => unknown;

/**
 * Derives a device with every operation wrapped, inside batches too. `batch` itself is left to `around`, and `allOrNothing` as it is.
 */
function wrapped<A>(
  device: Device<A>,
  wrap: (name: string, operation: Operation) => Operation,
  around: <R>(run: () => R) => R = (run) => run(),
): Device<A> {
  const { batch, allOrNothing, ...rest } = device;
  const operations = Object.fromEntries(
    Object.entries(rest).map(([name, operation]) => [
      name,
      typeof operation === "function" ? wrap(name, operation as Operation) : operation,
    ]),
  ) as unknown as typeof rest;
  const run = <R>(body: (d: Device<A>) => R): R => {
    const inside = (inner: Device<A>) => body(wrapped(inner, wrap, around));
    return around(() => batch ? batch(inside) : inside(device));
  };
  return Object.freeze({ ...operations, ...(allOrNothing && { allOrNothing }), batch: run });
}

/** A device and the names of the operations that were called on it, in order. */
export interface Recording<A> {
  readonly device: Device<A>;
  readonly calls: string[];
}

/** Derives a device that writes down every call; those of a batch stand between `batch` and `end`. */
export function record<A>(device: Device<A>): Recording<A> {
  const calls: string[] = [];
  const note = (name: string, operation: Operation): Operation => (...args) => {
    calls.push(name);
    return operation(...args);
  };
  const around = <R>(run: () => R): R => {
    calls.push("batch");
    const result = run();
    calls.push("end");
    return result;
  };
  return { device: wrapped(device, note, around), calls };
}

/** Derives a device that knows which arrays made through it are alive. */
export function census<A>(device: Device<A>): { device: Device<A>; alive: () => number } {
  const made = new Set<A>();
  const note = (value: unknown): void => {
    if (device.owns(value)) made.add(value);
    else if (typeof value === "object" && value !== null && !(value instanceof Promise)) {
      if (!ArrayBuffer.isView(value)) Object.values(value).forEach(note);
    }
  };
  const counted = wrapped(device, (_name, operation) => (...args) => {
    const result = operation(...args);
    note(result);
    return result;
  });
  return { device: counted, alive: () => [...made].filter(device.owns).length };
}

/** Derives a device whose n-th launch, counted from 0, throws; `reached` tells whether it came to that. */
export function failing<A>(
  device: Device<A>,
  n: number,
): { device: Device<A>; reached: () => boolean } {
  let launches = 0;
  const broken = wrapped(device, (name, operation) => {
    if (["free", "owns", "describe"].includes(name)) return operation;
    return (...args) => {
      if (launches++ === n) throw new Error(`launch ${n} failed`);
      return operation(...args);
    };
  });
  return { device: broken, reached: () => launches > n };
}
