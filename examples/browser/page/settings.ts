/**
 * What can be set: a record that the controls and the address bar show, and the plan that it makes.
 *
 * @module
 */

import { SMALLEST_BATCH } from "../../batches.ts";
import { type Plan, planRuns } from "../../compare.ts";
import { TRAINING_IMAGES } from "../../digits.ts";
import type { DeviceName } from "../../flags.ts";

/** What can be set. */
export interface Settings {
  /** Number of replicas. */
  readonly replicas: number;
  /** Images per replica and step. */
  readonly images: number;
  /** How often every image is seen. */
  readonly epochs: number;
  /** Where each replica computes. */
  readonly device: DeviceName;
}

/** What a number may be. */
export const LIMITS = {
  replicas: { from: 1, to: 8, usual: 4 },
  images: { from: 1, to: 16, usual: 2 },
  epochs: { from: 1, to: 8, usual: 2 },
} as const;

/** Devices by what people call them. */
export const DEVICES: Readonly<Record<DeviceName, string>> = {
  auto: "automatic",
  webgpu: "WebGPU",
  wasm: "Wasm SIMD",
  reference: "plain loops",
};

const SEED = 1;
/** An exam costs as much as a quarter of an epoch's forward passes, and the other replicas wait for the first one's. */
const EXAMS = 12;

/**
 * Reads settings.
 *
 * @param texts by their names, as a form or an address has them
 * @returns the settings; what is not there or not possible is what it usually is
 */
export function readSettings(texts: { readonly get: (name: string) => unknown }): Settings {
  const number = (name: keyof typeof LIMITS): number => {
    const { from, to, usual } = LIMITS[name];
    const text = String(texts.get(name));
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    return value >= from && value <= to ? value : usual;
  };
  const device = String(texts.get("device"));
  return Object.freeze({
    replicas: number("replicas"),
    images: number("images"),
    epochs: number("epochs"),
    device: Object.hasOwn(DEVICES, device) ? device as DeviceName : "auto",
  });
}

/** Writes settings as the part of an address behind its question mark. */
export function writeSettings(settings: Settings): string {
  return Object.entries(settings).map(([name, value]) => `${name}=${value}`).join("&");
}

/** Says why settings cannot be trained with, or null where they can. */
export function problemOf({ replicas, images }: Settings): string | null {
  if (replicas * images >= SMALLEST_BATCH) return null;
  return `All replicas together need at least ${SMALLEST_BATCH} images a step: ` +
    `they have ${replicas} × ${images}. Take more replicas, or more images for each.`;
}

/** Plans the runs, always from the same first parameters and in the same order of images. */
export function planOf({ replicas, images, epochs }: Settings): Plan {
  const options = { replicas, batch: images, epochs, stopAfter: Infinity, seed: SEED };
  const plan = planRuns(TRAINING_IMAGES, options);
  const exams = new Set(examsOf(plan.steps));
  const runs = Object.entries(plan.runs).map(([name, run]) =>
    [name, { ...run, task: run.task && { ...run.task, exams } }] as const
  );
  return Object.freeze({ ...plan, runs: Object.fromEntries(runs) as Plan["runs"] });
}

/** The steps after which a run is judged: ever farther apart, as it learns ever less, and the last one. */
function examsOf(steps: number): readonly number[] {
  return Array.from({ length: EXAMS }, (_, i) => Math.ceil(steps * ((i + 1) / EXAMS) ** 2));
}
