/**
 * How a synchronised function gets across its group: written once as steps, run by awaiting or by blocking the thread.
 *
 * @module
 */

import { checkDevice, checkSignal, signalIn } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { DeviceError } from "../errors.ts";
import { exchange } from "../exchange.ts";
import { region } from "../ownership.ts";
import { sideBySide, type WireFormat } from "../wire.ts";

/** A wire that is read back, or will be. */
type Wire = Float64Array | Promise<Float64Array>;

/** What a function waits for: a reduction over the ranks of what each has launched. */
export interface Exchange<A> {
  /** What travels, and for how many channels in each of the batch norms that share the collective. */
  readonly format: WireFormat;
  readonly channels: readonly number[];
  /** Checks, launches and reads back, on the handle it is given; what it throws is this rank's failure on every rank. */
  readonly launch: (read: (device: Device<A>, array: A) => Wire) => readonly Wire[];
}

/** A function over a group: it yields what it waits for, and goes on with the totals, one of each batch norm. */
export type Steps<A, R> = Generator<Exchange<A>, R, readonly Float64Array[]>;

/** What a call over a group is told. */
export interface Crossing<A, G> {
  readonly effects: { readonly device: Device<A>; readonly group: G };
  /** What the caller was about to do, for messages. */
  readonly action: string;
  /** What the ranks compare, and a signal to give up. */
  readonly options: CollectiveOptions;
}

/**
 * Runs steps over a group of two ranks or more, in a region of their own. The first collective is called before the first
 * await.
 */
export async function overGroup<A, R>(
  { effects, action, options }: Crossing<A, ReduceGroup>,
  steps: (scope: Device<A>) => Steps<A, R>,
): Promise<R> {
  const { group } = effects;
  const { label, signal } = options;
  const told = { label, signal: signalIn(options) };
  const run = async (going: Steps<A, R>): Promise<R> => {
    let step = going.next();
    while (!step.done) {
      const { format, channels, launch } = step.value;
      const wires = sideBySide(format, channels);
      const read = (device: Device<A>, array: A): Wire => device.toWire(array);
      const joined = async (all: readonly Wire[]) => wires.join(await Promise.all(all));
      const { total, own } = await exchange(
        group,
        () => {
          checkSignal(signal, action);
          return { wire: joined(launch(read)) };
        },
        wires.combine,
        told,
      );
      step = going.next(
        checked(format, wires.split(total, action), wires.split(own, action), action),
      );
    }
    return step.value;
  };
  const device = deviceOf(effects, action);
  return await (device
    ? region(device, (scope) => run(steps(scope)))
    : run(failing(effects, action)));
}

/** The same on a thread that may be held up, over a group that can. */
export function overBlockingGroup<A, R>(
  { effects, action, options: { label } }: Crossing<A, BlockingGroup>,
  steps: (scope: Device<A>) => Steps<A, R>,
): R {
  const { group } = effects;
  const read = (device: Device<A>, array: A): Float64Array => {
    if (device.toWireNow) return device.toWireNow(array);
    throw new DeviceError(
      `Cannot ${action} without waiting as the device must be able to read back at once: ` +
        `${device.info.name} is not; use the awaited function of the same name`,
      "unsupported",
    );
  };
  const run = (going: Steps<A, R>): R => {
    let step = going.next();
    while (!step.done) {
      const { format, channels, launch } = step.value;
      const wires = sideBySide(format, channels);
      let own: Float64Array = new Float64Array();
      const local = () => own = wires.join(launch(read) as Float64Array[]);
      const total = group.allReduceBlocking(local, wires.combine, { label });
      step = going.next(
        checked(format, wires.split(total, action), wires.split(own, action), action),
      );
    }
    return step.value;
  };
  const device = deviceOf(effects, action);
  return device ? region(device, (scope) => run(steps(scope))) : run(failing(effects, action));
}

function checked(
  { check }: WireFormat,
  totals: readonly Float64Array[],
  own: readonly Float64Array[],
  action: string,
): readonly Float64Array[] {
  totals.forEach((total, i) => check(total, own[i], action));
  return totals;
}

/** The device of a call, or null for what is none: the other ranks wait for this one, and must hear of it. */
function deviceOf<A>(effects: { readonly device: Device<A> }, action: string): Device<A> | null {
  try {
    return checkDevice(effects, action).device;
  } catch {
    return null;
  }
}

/** Steps of a rank that has no device. */
function* failing<A>(effects: { readonly device: Device<A> }, action: string): Steps<A, never> {
  const format = {
    name: "moments",
    length: () => 0,
    combine: (a: Float64Array) => a,
    check: () => {},
  } as const;
  yield {
    format,
    channels: [0],
    launch: () => {
      checkDevice(effects, action);
      return [];
    },
  };
  throw new TypeError(`Cannot ${action} without a device`);
}
