/**
 * What may be chosen about how a device works: for experiments, or because it was measured to be faster on an adapter.
 *
 * @module
 */

import type { Subgroups } from "../wgsl/tiles.ts";

/** What may be chosen otherwise: for experiments, or because another choice was measured to be faster on an adapter. */
export interface Choices {
  /** Whether four neighbours in memory are taken at once where shape, format and address allow it; true by default. */
  readonly packs: boolean;
  /**
   * Whether invocations of a subgroup merge in registers: `"declared"` for compilers that want `enable subgroups;` (Tint),
   * `"implied"` for those that do not know it (naga). Needs the feature `subgroups`; `"none"` by default, and what was found
   * to work by default of `requestWebGpuDevice`.
   */
  readonly subgroups: Subgroups;
  /** Invocations of a workgroup, a power of two from 64 to 256; 256 by default, 64 on software. */
  readonly workgroup: number;
  /** Workgroups that a reduction over a large tensor should have, so that few channels fill a GPU too; 4,096 by default. */
  readonly workgroups: number;
  /** Packs that an invocation loads before it uses the first, 1 to 8; 4 by default. */
  readonly ahead: number;
  /**
   * Whether forward writes a mask of where ReLU let through, a bit per element, so that backward need not read the output
   * again; true by default.
   */
  readonly masks: boolean;
  /** Packs that an invocation of an elementwise kernel walks at least; 4 by default. */
  readonly walked: number;
  /**
   * Bytes of the GPU's last-level cache. Tensors larger than 0.4 of it are worked on in groups of channels, so that the
   * second read of each comes from the cache; 0, no groups, by default: WebGPU does not tell.
   */
  readonly cacheBytes: number;
}

/** What each choice is by default, what it may be, and that in words. */
const CHOICES: {
  readonly [K in keyof Choices]: readonly [
    usual: Choices[K],
    possible: (value: unknown) => boolean,
    words: string,
  ];
} = {
  packs: [true, isBoolean, "true or false"],
  subgroups: ["none", among("none", "declared", "implied"), '"none", "declared" or "implied"'],
  workgroup: [256, among(64, 128, 256), "64, 128 or 256"],
  workgroups: [4096, whole(1, 2 ** 20), "an integer from 1 to 2^20"],
  ahead: [4, whole(1, 8), "an integer from 1 to 8"],
  masks: [true, isBoolean, "true or false"],
  walked: [4, whole(1, 2 ** 16), "an integer from 1 to 2^16"],
  cacheBytes: [0, whole(0, 2 ** 40), "an integer of 0 or more bytes"],
};

function isBoolean(value: unknown): boolean {
  return typeof value === "boolean";
}

function among(...possible: readonly unknown[]): (value: unknown) => boolean {
  return (value) => possible.includes(value);
}

function whole(least: number, most: number): (value: unknown) => boolean {
  return (value) => Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
}

/** The choices for an adapter, which may be software, and what the caller chose otherwise. */
export function choicesFor(isFallbackAdapter: boolean, plan: Partial<Choices> = {}): Choices {
  const given: Partial<Choices> = {
    ...(isFallbackAdapter && { workgroup: 64 }), // Software pays for each invocation.
    ...Object.fromEntries(Object.entries(plan).filter(([, value]) => value !== undefined)),
  };
  const all = Object.entries(CHOICES).map(([name, [usual]]) => [name, usual]);
  return Object.freeze({ ...Object.fromEntries(all), ...given });
}

/** Checks choices that a caller made: a RangeError for one that there is not, or a value that it cannot have. */
export function checkChoices(choices: Partial<Choices>): void {
  for (const [name, value] of Object.entries(choices)) {
    if (!Object.hasOwn(CHOICES, name)) {
      throw new RangeError(
        `Cannot make the device as its plan has no choice called ${name}: there are ${
          Object.keys(CHOICES).join(", ")
        }`,
      );
    }
    const [, possible, words] = CHOICES[name as keyof Choices];
    if (value === undefined || possible(value)) continue;
    throw new RangeError(
      `Cannot make the device as the plan's ${name} must be ${words}: current value is ${value}`,
    );
  }
}
