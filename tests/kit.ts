/**
 * What the suites need to know of a device or a group in order to test it: the two plugs of every test in this folder.
 */

import assert from "node:assert/strict";
import type { Device, ProcessGroup } from "../mod.ts";
import type { Tier } from "./tier.ts";

/** How a test is registered: `Deno.test`, or what counts tests that this run leaves out. */
export type Register = (name: string, body: () => void | Promise<void>) => void;

/** What kits of devices and of groups have in common. */
export interface Kit {
  /** For the names of the tests. */
  readonly name: string;
  /** In which runs its tests are run; "quick", in all of them, by default. */
  readonly tier?: Tier;
  /** How its tests are registered; `Deno.test` by default. */
  readonly register?: Register;
}

/** A device under test. */
export interface DeviceKit<A> extends Kit {
  /** Opens a fresh device; `close` ends it. Rejects where the machine has none. */
  readonly open: () => Promise<{ readonly device: Device<A>; readonly close: () => Promise<void> }>;
  /**
   * How many units of the storage's last place (float32: 2^-23, float16: 2^-10, relative) a result may be away from
   * float64 arithmetic rounded once: 1 for a device that computes in float64 (a value next to a rounding boundary may
   * fall on either side), more for arithmetic in float32.
   */
  readonly ulps: number;
  /** Whether NaN and infinities in a channel make its outputs NaN, as IEEE 754 has it; WGSL may assume there are none. */
  readonly nonFinite: boolean;
  /** Whether subnormal numbers and the sign of 0 come through, as IEEE 754 has it; WGSL may take both for 0. */
  readonly subnormals: boolean;
  /**
   * What it computes in. In float32 a variance + eps below 2^-126, the smallest normal number, counts as 0, and what is
   * too large on the way to a result is infinite.
   */
  readonly arithmetic: "float32" | "float64";
  /** Set where gradient sums are of x - mean as float32: where that is infinite, so are the channel's gradients, or NaN. */
  readonly deviations?: "float32";
  /** How many scenarios of the law to draw; 300 by default, fewer where a readback is slow. */
  readonly cases?: number;
  /**
   * Of how many ways to compute (shapes, memory orders, options) they are, where each has kernels of its own to compile; any
   * by default.
   */
  readonly ways?: number;
  /**
   * Set where tests of tens of millions of elements belong, which need a second and a GB, once per kind of kernels; "narrow"
   * where a channel is a channel, and a tenth of them tells as much.
   */
  readonly giants?: true | "narrow";
}

/**
 * What a rank does. The body is an export of its module and closes over nothing, parameter and result are structured
 * clones: so it can run in this thread, in a worker or in another process.
 */
export interface RankTask<P, R> {
  /** `import.meta.url` of the module that exports the body. */
  readonly module: string;
  /** The name of the export. */
  readonly name: string;
  /** The export itself. */
  readonly body: (group: ProcessGroup, parameter: P) => Promise<R>;
}

/** A kind of group under test. */
export interface GroupKit extends Kit {
  /** Runs a task on every rank concurrently; rejects with the first error once all ranks have settled. */
  readonly run: <P, R>(
    worldSize: number,
    task: RankTask<P, R>,
    parameter: P,
    options?: { readonly timeoutMs?: number },
  ) => Promise<R[]>;
  /** Whether only `allReduce` is this kind's own, and the other collectives are tested elsewhere. */
  readonly reduceOnly?: true;
  /** Whether ranks may hold up their threads: `allReduceBlocking` works. */
  readonly blocks?: true;
  /** False where sums are not folded in rank order, from left to right: then their last bits are the engine's own. */
  readonly foldsInOrder?: false;
  /**
   * Where starting ranks costs more than what they do: the law then runs all scenarios on sub-groups of one world of
   * this many ranks, 8 at most.
   */
  readonly costlyStart?: number;
}

/** Opens a device for the length of a body. */
export async function using<A, T>(
  kit: DeviceKit<A>,
  body: (device: Device<A>) => Promise<T> | T,
): Promise<T> {
  const { device, close } = await kit.open();
  try {
    return await body(device);
  } finally {
    await close();
  }
}

/** Registers a test of a kit under its name. */
export function register(
  { name: kit, register = Deno.test }: Kit,
  name: string,
  body: () => void | Promise<void>,
): void {
  register(`${kit}: ${name}`, body);
}

/** Registers tests of a device under its name, each with a device that the kit opens for it. */
export function testsOf<A>(
  kit: DeviceKit<A>,
): (name: string, body: (device: Device<A>) => Promise<void> | void) => void {
  return (name, body) => register(kit, name, () => using(kit, body));
}

/** Relative unit in the last place of a storage. */
export const EPSILON = { float32: 2 ** -23, float16: 2 ** -10 } as const;

/**
 * Fails unless every number is within `absolute + |expected| * relative` of what is expected; NaN equals NaN only.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { absolute, relative }: {
    readonly absolute: number | ArrayLike<number>;
    readonly relative: number;
  },
  what: string,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} values instead of ${expected.length}`);
  }
  for (let i = 0; i < expected.length; i++) {
    const [is, wanted] = [actual[i], expected[i]];
    if (Object.is(is, wanted) || (Number.isNaN(is) && Number.isNaN(wanted)) || is === wanted) {
      continue;
    }
    if (!Number.isFinite(wanted)) throw new Error(`${what}[${i}]: ${is} instead of ${wanted}`);
    const slack = (typeof absolute === "number" ? absolute : absolute[i]) +
      Math.abs(wanted) * relative;
    if (!(Math.abs(is - wanted) <= slack)) {
      throw new Error(
        `${what}[${i}]: ${is} instead of ${wanted}, off by ${
          Math.abs(is - wanted)
        }, allowed ${slack}`,
      );
    }
  }
}

/** Fails unless a call throws an error of a type whose message matches. */
export function throwsLike(call: () => unknown, type: ErrorConstructor, text: RegExp): void {
  assert.throws(call, (error) => {
    assert(error instanceof type, `${error} should be a ${type.name}`);
    assert.match(error.message, text);
    return true;
  });
}
