/** How a synchronised function gets across its group: written once, run by awaiting or by blocking the thread. */

import { checkDevice, checkSignal, groupIn, holdsDevice, signalIn } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { DeviceError } from "../errors.ts";
import { exchange, type Wire } from "../exchange.ts";
import { abandon, region } from "../ownership.ts";
import { formatOn, sideBySide, type WireFormat } from "../wire.ts";

/** How a launch reads an array back, on the handle that made it. */
export type Read<A> = (device: Device<A>, array: A) => Wire;

/** A function over a group: a reduction over the ranks, what each does before it, and what after. */
export interface Crossing<A, R> {
  readonly action: string;
  readonly label: string;
  /** What travels, all of one format or each of its own, and for how many channels in each of the batch norms that share the collective. */
  readonly format: WireFormat | readonly WireFormat[];
  readonly channels: readonly number[];
  /** Does all of it in a world of one, where nobody has to be told anything. */
  readonly alone: (device: Device<A>, read: Read<A>) => R;
  /** Whether a success frees what it does not return, and `made` names what a failure leaves; else all of it is in a region. */
  readonly tidy?: boolean;
  /** Checks, launches and reads back; what it throws is this rank's failure on every rank. A failure frees what was made. */
  readonly launch: (scope: Device<A>, worldSize: number, read: Read<A>) => Launched<A, R>;
}

/** Goes on once wires are read: at once where all of them are. */
export function whenRead<R>(
  wires: readonly Wire[],
  then: (wires: readonly Float64Array[]) => R,
): R | Promise<R> {
  const now = wires.filter((wire) => wire instanceof Float64Array);
  return now.length === wires.length ? then(now) : Promise.all(wires).then(then);
}

interface Launched<A, R> {
  readonly wires: readonly Wire[];
  /** What was made and waits for the totals. */
  readonly made?: readonly A[];
  readonly conclude: (totals: readonly Float64Array[]) => R;
}

/** Crosses a group by awaiting. The collective is called before the first await. */
export async function overGroup<A, R>(
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal">,
  crossing: Crossing<A, R>,
): Promise<R> {
  const { action, tidy, alone } = crossing;
  const { worldSize } = groupIn(effects, options, action);
  const read: Read<A> = (device, array) => device.toWireNow?.(array) ?? device.toWire(array);
  if (worldSize === 1) return alone(checkDevice(effects, action).device, read);
  const across = async (scope: Device<A>): Promise<R> => {
    const { start, told, combine, conclude, undo } = onRank(crossing, effects, worldSize, read);
    const starting = () => {
      checkSignal(options?.signal, action);
      return { wire: start(scope) };
    };
    const telling = { ...told, signal: signalIn(options) };
    try {
      const { total } = await exchange(
        starting,
        (own) => effects.group.allReduce(own, combine, telling),
      );
      return conclude(total);
    } catch (error) {
      undo(scope);
      throw error;
    }
  };
  // The other ranks wait for one that has no device, and must hear of it.
  return await (tidy || !holdsDevice(effects)
    ? across(effects.device)
    : region(effects.device, across));
}

/** The same on a thread that may be held up, over a group that can. */
export function overBlockingGroup<A, R>(
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  crossing: Crossing<A, R>,
): R {
  const { action, tidy, alone } = crossing;
  const { worldSize } = groupIn(effects, {}, action, "allReduceBlocking");
  const read = (device: Device<A>, array: A): Float64Array => {
    if (device.toWireNow) return device.toWireNow(array);
    throw new DeviceError(
      `Cannot ${action} without waiting as the device must be able to read back at once: ` +
        `${device.info.name} is not; use the awaited function of the same name`,
      "unsupported",
    );
  };
  if (worldSize === 1) return alone(checkDevice(effects, action).device, read);
  const across = (scope: Device<A>): R => {
    const { start, told, combine, conclude, undo } = onRank(crossing, effects, worldSize, read);
    try {
      // All of its wires are read at once.
      const local = () => start(scope) as Float64Array;
      return conclude(effects.group.allReduceBlocking(local, combine, told));
    } catch (error) {
      undo(scope);
      throw error;
    }
  };
  return tidy || !holdsDevice(effects) ? across(effects.device) : region(effects.device, across);
}

/** What one rank does of a crossing, before the collective and after it. */
function onRank<A, R>(
  { action, label, format, channels, launch }: Crossing<A, R>,
  effects: { readonly device: Device<A> },
  worldSize: number,
  read: Read<A>,
) {
  const { device } = effects;
  const wires = sideBySide(formatsOn(device, format), channels);
  let launched: Launched<A, R> | undefined;
  let heads: ReturnType<typeof wires.heads> = [];
  return {
    told: { label: labelOn(device, label), inPlace: true },
    combine: wires.combine,
    /** What it gives. */
    start: (scope: Device<A>): Wire => {
      checkDevice(effects, action);
      launched = launch(scope, worldSize, read);
      return whenRead(launched.wires, (all) => {
        const own = wires.own(all, action);
        heads = wires.heads(own);
        return own;
      });
    },
    conclude: (total: Float64Array): R => launched!.conclude(wires.totals(total, heads, action)),
    undo: (scope: Device<A>): void => {
      if (launched?.made) abandon(scope, launched.made);
    },
  };
}

/** What a crossing's formats travel as on a device. */
function formatsOn<A>(device: Device<A>, format: Crossing<A, unknown>["format"]) {
  return "name" in format
    ? formatOn(device, format)
    : format.map((format) => formatOn(device, format));
}

/** A label that sets exact ranks apart from others: their numbers must not be folded. */
export function labelOn<A>(device: Device<A>, label: string): string {
  return device?.info?.exact ? `${label}, exact` : label;
}
