/**
 * What an engine has to do, and the group that is made of one: arguments are checked and calls described here, once for
 * all engines.
 *
 * An engine only meets and splits. So the same mistake reads alike in one thread and over a network.
 */

import { checkInteger, checkOneOf, SWITCH } from "../check_value.ts";
import type { CollectiveOptions, Combine, ProcessGroup, ReduceOptions } from "../collectives.ts";
import { display } from "./failures.ts";
import { wrongValue } from "../words.ts";

/** How the values of a call travel, and what {@linkcode Engine.meet} resolves to. */
export type Flow =
  /**
   * `[total]`: folded by `combine`, in rank order where the engine allows. In place an engine may write it where this rank's
   * values are, but need not.
   */
  | { readonly kind: "reduce"; readonly combine: Combine; readonly inPlace: boolean }
  /** The arrays of all ranks, in rank order. */
  | { readonly kind: "gather" }
  /** `[values]` of the root. */
  | { readonly kind: "broadcast"; readonly root: number }
  /** `[]`, once all are there. */
  | { readonly kind: "barrier" };

/** One rank's part in a call. */
export interface Request {
  /** The kind of call and its label, for messages and agreement. */
  readonly name: string;
  /** What else must be equal on all ranks once the values are known. */
  readonly detail: (values: Float64Array) => string;
  readonly values: Float64Array | Promise<Float64Array>;
  readonly signal?: AbortSignal;
  readonly flow: Flow;
}

/** One rank's end of whatever connects the ranks. */
export interface Engine {
  readonly rank: number;
  readonly worldSize: number;
  /** Brings this rank's part; takes its place in line at once. The arrays that it resolves to belong to the caller. */
  readonly meet: (request: Request) => Promise<readonly Float64Array[]>;
  /** `meet` that holds up the thread, with values that are made in the call's turn; throws TypeError where that cannot be. */
  readonly meetNow: (request: Request, values: () => Float64Array) => readonly Float64Array[];
  /** Meets, gathering `[color, key]`, and goes on to the engine of this rank's sub-group within the same place in line. */
  readonly split: (request: Request) => Promise<Engine>;
}

/** Makes the record that users see. */
export function processGroup(engine: Engine): ProcessGroup {
  const { rank, worldSize } = engine;
  const request = (
    kind: string,
    options: CollectiveOptions | undefined,
    flow: Flow,
    values: Request["values"],
    detail: Request["detail"],
  ): Request => {
    const { label, signal } = options ?? {};
    // Whatever a label is, it must not keep this rank from its call, which the others wait for.
    const name = label === undefined ? kind : `${kind} "${display(label)}"`;
    return checkSignal({ name, signal, detail, values, flow });
  };
  const reduction = (
    values: Request["values"],
    combine: Combine,
    options?: ReduceOptions,
  ) => {
    const inPlace = options?.inPlace ?? false;
    return request("allReduce", options, { kind: "reduce", combine, inPlace }, values, (own) => {
      checkOneOf(inPlace, SWITCH, "inPlace", "reduce");
      return `${lengthOf(own)} with ${nameOf(combine)}`;
    });
  };
  const group: ProcessGroup = {
    rank,
    worldSize,
    allReduce: async (values, combine, options) => {
      const [total] = await engine.meet(reduction(values, combine, options));
      return options?.inPlace ? placed(total, await values) : total;
    },
    allReduceBlocking: (local, combine, options) => {
      const { label, inPlace } = options ?? {};
      let own = NO_VALUES;
      const make = () => own = typeof local === "function" ? local() : local;
      const [total] = engine.meetNow(reduction(NO_VALUES, combine, { label, inPlace }), make);
      return inPlace ? placed(total, own) : total;
    },
    allGather: async (values, options) => {
      const all = await engine.meet(request("allGather", options, GATHER, values, lengthOf));
      return Object.freeze(all);
    },
    broadcast: async (values, root, options) => {
      const isRank = Number.isInteger(root) && root >= 0 && root < worldSize;
      const wanted = `root must be a rank below ${worldSize}`;
      const sending = isRank ? values : refuse(values, wrongValue("broadcast", wanted, root));
      const flow = { kind: "broadcast", root: isRank ? root : 0 } as const;
      const detail = (own: Float64Array) => `${lengthOf(own)} from rank ${root}`;
      const [sent] = await engine.meet(request("broadcast", options, flow, sending, detail));
      return sent;
    },
    barrier: async (options) => {
      const flow = { kind: "barrier" } as const;
      await engine.meet(request("barrier", options, flow, NO_VALUES, () => "of all ranks"));
    },
    split: async (color, key = 0, options) => {
      const isCut = Number.isFinite(color) && Number.isFinite(key);
      const values = isCut ? Float64Array.of(color, key) : refuse(
        NO_VALUES,
        new RangeError(
          `Cannot split the group as color and key must be finite: current values are ${color} and ${key}`,
        ),
      );
      const wish = request("split", options, GATHER, values, () => "by color");
      return processGroup(await engine.split(wish));
    },
  };
  return Object.freeze(group);
}

/** Finds a rank's sub-group. */
export function membersOf(wishes: readonly Float64Array[], rank: number): readonly number[] {
  return [...wishes.keys()]
    .filter((other) => wishes[other][0] === wishes[rank][0])
    .sort((a, b) => wishes[a][1] - wishes[b][1] || a - b);
}

/** Checks a number of ranks and a deadline. */
export function checkWorld(worldSize: number, timeoutMs: number): void {
  checkInteger(worldSize, "worldSize", "make the group", 1);
  checkTimeout(timeoutMs);
}

/** Checks a deadline: what timers can hold, or Infinity. */
export function checkTimeout(timeoutMs: number, name = "timeoutMs"): void {
  const longest = 2 ** 31 - 1;
  if (timeoutMs === Infinity) return;
  if (typeof timeoutMs === "number" && timeoutMs > 0 && timeoutMs <= longest) return;
  throw wrongValue("make the group", `${name} must be in (0, ${longest}] or Infinity`, timeoutMs);
}

const NO_VALUES: Float64Array = /* @__PURE__ */ new Float64Array();

const GATHER: Flow = { kind: "gather" };

/** Makes the `meetNow` of an engine that has none. */
export function cannotBlock(reason: string): Engine["meetNow"] {
  return ({ name }) => {
    throw new TypeError(`Cannot hold up the thread in ${name} as ${reason}`);
  };
}

/** Names a function as ranks compare it, with what it declares: who cuts arrays and who does not would wait for each other. */
export function nameOf(combine: Combine): string {
  const name = combine?.name || "an unnamed function";
  const expected = name === "sum";
  if (Boolean(combine?.elementwise) === expected) return name;
  return `${name} (${expected ? "not " : ""}elementwise)`;
}

/** Puts a total where this rank's values were. */
export function placed(total: Float64Array, own: Float64Array): Float64Array {
  if (total !== own) own.set(total);
  return own;
}

function lengthOf(values: Float64Array): string {
  return `of ${values.length} values`;
}

/** Makes a signal that is none this rank's failure, like any other wrong argument. */
function checkSignal(request: Request): Request {
  const { signal, name, values } = request;
  if (signal === undefined || signal instanceof AbortSignal) return request;
  const error = new TypeError(`Cannot call ${name} as its signal must be an AbortSignal`);
  return { ...request, signal: undefined, values: refuse(values, error) };
}

/** A failure in place of values; if those fail as well, nobody hears of it. */
function refuse(values: Request["values"], error: Error): Promise<never> {
  Promise.resolve(values).catch(() => {});
  const refused = Promise.reject(error);
  refused.catch(() => {});
  return refused;
}
