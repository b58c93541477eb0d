/** Devices that watch another device: how often what is called, and what is alive. */

import type { Device } from "../mod.ts";

/** A device and the names of the operations that were called on it, in order. */
export interface Recording<A> {
  readonly device: Device<A>;
  readonly calls: string[];
}

/**
 * Derives a device that writes down every call; those of a batch stand between `batch` and `end`, fused operations are
 * named `fused.normalize` and so on.
 */
export function record<A>(device: Device<A>, calls: string[] = []): Recording<A> {
  const watch = <T extends object>(operations: T, prefix: string): T => {
    const entries = Object.entries(operations).map(([name, operation]) => {
      if (typeof operation !== "function") return [name, operation];
      return [name, (...args: unknown[]) => {
        calls.push(prefix + name);
        return operation(...args);
      }];
    });
    return Object.fromEntries(entries) as T;
  };
  const watched = watch(device, "");
  const batch = <R>(body: (inner: Device<A>) => R): R => {
    calls.push("batch");
    const run = (inner: Device<A>) => body(record(inner, calls).device);
    const result = device.batch ? device.batch(run) : run(device);
    calls.push("end");
    return result;
  };
  const fused = device.fused && watch(device.fused, "fused.");
  return { device: Object.freeze({ ...watched, batch, ...(fused && { fused }) }), calls };
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
  const watch = <T extends object>(operations: T): T =>
    Object.fromEntries(
      Object.entries(operations).map(([name, operation]) => [
        name,
        typeof operation !== "function" ? operation : (...args: unknown[]) => {
          const result = operation(...args);
          note(result);
          return result;
        },
      ]),
    ) as T;
  const derive = (inner: Device<A>): Device<A> => {
    const { batch, fused, ...rest } = inner;
    return Object.freeze({
      ...watch(rest),
      ...(batch && { batch: <R>(body: (d: Device<A>) => R) => batch((d) => body(derive(d))) }),
      ...(fused && { fused: watch(fused) }),
    });
  };
  return { device: derive(device), alive: () => [...made].filter(device.owns).length };
}

/** Derives a device whose n-th launch, counted from 0, throws; `reached` tells whether it came to that. */
export function failing<A>(
  device: Device<A>,
  n: number,
): { device: Device<A>; reached: () => boolean } {
  let launches = 0;
  const watch = <T extends object>(operations: T): T =>
    Object.fromEntries(
      Object.entries(operations).map(([name, operation]) => {
        if (typeof operation !== "function" || ["free", "owns", "describe"].includes(name)) {
          return [name, operation];
        }
        return [name, (...args: unknown[]) => {
          if (launches++ === n) throw new Error(`launch ${n} failed`);
          return operation(...args);
        }];
      }),
    ) as T;
  const derive = (inner: Device<A>): Device<A> => {
    const { batch, fused, ...rest } = inner;
    return Object.freeze({
      ...watch(rest),
      ...(batch && { batch: <R>(body: (d: Device<A>) => R) => batch((d) => body(derive(d))) }),
      ...(fused && { fused: watch(fused) }),
    });
  };
  return { device: derive(device), reached: () => launches > n };
}
