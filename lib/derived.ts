/** A device's handle for a region or a batch: the same operations, each of which asks first and tells of what it made. */

import type { Device } from "./device.ts";

/** Who is asked before every operation of a derived handle, and told of what each returns, and of every array that is freed. */
export interface Owner<A> {
  /** Throws where nothing may be launched any more. */
  readonly check: () => void;
  /** Takes a result as it is: `arraysIn` finds what it holds, where that is needed. */
  readonly returned: (result: unknown) => void;
  readonly disown: (array: A) => void;
}

type Operation = (...args: unknown[]) => unknown;

interface Derivation {
  readonly device: Readonly<Record<PropertyKey, unknown>>;
  readonly owner: Owner<unknown>;
}

/** Derives a handle, which wraps whatever a device can do when it is asked for: cheaper than a record of closures. */
export function derive<A>(device: Device<A>, owner: Owner<A>): Device<A> {
  return new Proxy({ device, owner } as unknown as Derivation, HANDLER) as unknown as Device<A>;
}

const HANDLER: ProxyHandler<Derivation> = {
  get: ({ device, owner }, name) => {
    const operation = device[name];
    return typeof operation === "function" ? wrap(owner, name, operation as Operation) : operation;
  },
  has: ({ device }, name) => name in device,
  ownKeys: ({ device }) => Reflect.ownKeys(device),
  getOwnPropertyDescriptor: (handle, name) =>
    Object.hasOwn(handle.device, name)
      ? { value: HANDLER.get!(handle, name, null), enumerable: true, configurable: true }
      : undefined,
  set: () => false,
  defineProperty: () => false,
  deleteProperty: () => false,
};

function wrap(owner: Owner<unknown>, name: PropertyKey, operation: Operation): Operation {
  // They launch nothing, and make nothing.
  if (name === "describe" || name === "owns" || name === "allOrNothing") return operation;
  if (name === "free") {
    return (...arrays) => {
      operation(...arrays);
      arrays.forEach(owner.disown);
    };
  }
  if (name === "batch") {
    return (body) => {
      owner.check();
      return operation((inner: Device<unknown>) => (body as Operation)(derive(inner, owner)));
    };
  }
  return (...args) => {
    owner.check();
    const result = operation(...args);
    owner.returned(result);
    return result;
  };
}

/** The arrays in a result of an operation: it may be one, or a plain record of some; promises and typed arrays hold none. */
export function arraysIn<A>({ owns }: Pick<Device<A>, "owns">, result: unknown): readonly A[] {
  if (owns(result)) return [result];
  const isRecord = typeof result === "object" && result !== null &&
    Object.getPrototypeOf(result) === Object.prototype;
  return isRecord ? Object.values(result).filter(owns) : [];
}
