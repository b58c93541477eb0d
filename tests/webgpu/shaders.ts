/** Every kernel in every option, put to the shader compiler of the implementation at hand. */

import assert from "node:assert/strict";
import { addScaledKernel } from "../../kernels/wgsl/add_scaled.ts";
import {
  directionKernel,
  followKernel,
  secondGradWeightKernel,
  secondKernel,
} from "../../kernels/wgsl/directions.ts";
import { gradientSumsKernel } from "../../kernels/wgsl/gradient_sums.ts";
import { gradientsKernel, gradParametersKernel } from "../../kernels/wgsl/gradients.ts";
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import { maskGate, plainGate } from "../../kernels/wgsl/mask.ts";
import { momentsKernel } from "../../kernels/wgsl/moments.ts";
import { normalizeKernel } from "../../kernels/wgsl/normalize.ts";
import { mergedKernel } from "../../kernels/wgsl/merged.ts";
import { runningStatsKernel } from "../../kernels/wgsl/statistics.ts";
import type { Tile } from "../../kernels/wgsl/tiles.ts";
import { UNWEIGHTED, type Weighing } from "../../kernels/wgsl/weights.ts";
import type { DType, Format } from "../../lib/tensor.ts";
import { channelTile, layOut, tileOf } from "../../kernels/webgpu/plan.ts";
import { createFailures } from "../../kernels/webgpu/failures.ts";
import { createPrograms } from "../../kernels/webgpu/programs.ts";
import type { Opener } from "../webgpu_kit.ts";

/** Every combination of the given values. */
function* combinations<T extends Record<string, readonly unknown[]>>(
  choices: T,
): Generator<{ readonly [K in keyof T]: T[K][number] }> {
  const [[name, values] = [], ...rest] = Object.entries(choices);
  if (name === undefined || values === undefined) {
    yield {} as { readonly [K in keyof T]: T[K][number] };
    return;
  }
  for (const tail of combinations(Object.fromEntries(rest))) {
    for (const value of values) {
      yield { [name]: value, ...tail } as { readonly [K in keyof T]: T[K][number] };
    }
  }
}

const YES_NO = [false, true] as const;
/** Kernels that share one report, which names the first that fails. */
const TOGETHER = 64;

/** Ways in which workgroups may be made up: every pack, one sample and many, one lane and many. */
function tilesOf(workgroup: number): Tile[] {
  const shapes: readonly (readonly [readonly number[], readonly Format[]])[] = [
    [[1, 5, 99], ["channelsFirst"]], // One sample, and many; nothing to pack.
    [[3, 5, 99], ["channelsFirst"]],
    [[3, 33, 99], ["channelsLast"]],
    [[3, 33, 99], ["channelsLast", "channelsFirst"]],
    [[1, 5, 64], ["channelsFirst"]], // Packs of places,
    [[3, 5, 64], ["channelsFirst"]],
    [[3, 4, 99], ["channelsLast"]], // and of channels.
    [[3, 64, 99], ["channelsLast"]],
  ];
  return shapes.map(([shape, formats]) => tileOf(layOut(shape, formats, true), workgroup));
}

/** Every kernel that the device may launch with a tile, and such weights of examples. */
function kernelsOf(
  dtypes: readonly DType[],
  tile: Tile,
  weighings: readonly Weighing[],
): Kernel[] {
  const same = Object.fromEntries(
    Object.entries(tile).map(([name, value]) => [name, [value]]),
  ) as unknown as { readonly [K in keyof Tile]: readonly Tile[K][] };
  const each = { dtype: dtypes, ...same };
  const sources = { source: ["batch", "running"] as const };
  // Masks lie as the tile of another walk has it, whose packs are this one's, or elements that this one takes by one.
  const layouts = (tile.pack === "none" ? ["places", "channels"] as const : [tile.pack]).map(
    (pack) => ({ pack, rows: 16 }),
  );
  // Only batches' own statistics have masks; what they have to do with weight, bias and dispatches is nothing.
  const gates = [
    ...(["none", "output"] as const).map((gate) => (
      { ...plainGate(gate), ...sources, weight: YES_NO }
    )),
    ...[plainGate("bounded"), ...layouts.map(maskGate)].map((gate) => ({
      ...gate,
      source: ["batch"] as const,
      weight: [true],
    })),
  ];
  const masks = tile.pack === "none" ? [] : [...combinations({
    ...{ ...each, source: ["batch"] as const, weight: [true], bias: [true] },
    ...{ residual: YES_NO, activation: ["relu"] as const, mask: [true] },
  })];
  return [
    ...[...combinations(each)].flatMap((one) =>
      weighings.map((weighing) => momentsKernel({ ...one, ...weighing }))
    ),
    ...combinations({
      ...{ ...each, ...sources, weight: YES_NO, bias: YES_NO },
      ...{ residual: YES_NO, activation: ["none", "relu"] as const, mask: [false] },
    }).map(normalizeKernel),
    ...combinations({
      ...{ ...each, ...sources, weight: [true], bias: [true] },
      ...{ residual: YES_NO, activation: ["bounded"] as const, mask: [false] },
    }).map(normalizeKernel),
    ...masks.map(normalizeKernel),
    ...gates.flatMap(({ source: _, weight: __, ...gate }) =>
      [...combinations({ ...each, second: YES_NO, added: YES_NO })]
        .flatMap((one) =>
          weighings.map((weighing) => followKernel({ ...one, ...gate, ...weighing }))
        )
    ),
    ...gates.flatMap(({ source, weight, ...gate }) => [
      ...[...combinations({ ...each, source })].flatMap((one) =>
        weighings.map((weighing) => gradientSumsKernel({ ...one, ...gate, ...weighing }))
      ),
      ...[...combinations({
        ...{ ...each, total: ["local", "other", "none"] as const, weight },
        ...{ residual: YES_NO, parameters: YES_NO },
      })].flatMap((one) =>
        weighings.map((weighing) => gradientsKernel({ ...one, ...gate, ...weighing }))
      ),
    ]),
    ...combinations({ x: dtypes, y: dtypes, ...same }).map(addScaledKernel),
  ];
}

/** Every kernel that walks no tensor. */
function mergersOf(tile: Tile): Kernel[] {
  return [
    ...[runningStatsKernel, gradParametersKernel].map((make) => make(tile)),
    ...[directionKernel, secondKernel, secondGradWeightKernel].flatMap((make) =>
      (["batch", "running"] as const).map((source) => make({ ...tile, source }))
    ),
    ...(["moments", "gradient sums"] as const).flatMap((statistic) =>
      YES_NO.map((two) => mergedKernel({ ...tile, statistic, two }))
    ),
  ];
}

/**
 * Of kernels as many as have every two choices of a function together: what a driver may fail at lies rarely in three. Or as
 * many as have every one.
 */
function covering(kernels: readonly Kernel[], choicesTogether: 1 | 2 = 2): Kernel[] {
  const choices = kernels.map(({ name }) => name.split(" "));
  const flags = new Set(choices.flat().filter((choice) => !choice.includes("=")));
  const seen = new Set<string>();
  return kernels.filter((_, i) => {
    const [made, ...chosen] = choices[i];
    const all = [...chosen, ...[...flags].map((flag) => `${flag}=${chosen.includes(flag)}`)];
    const others = choicesTogether === 2 ? all : [""];
    const sets = all.flatMap((a) => others.map((b) => `${made} ${a} ${b}`));
    const isNew = sets.some((set) => !seen.has(set));
    sets.forEach((set) => seen.add(set));
    return isNew;
  });
}

/** Registers the test of shaders. */
export function shaderTests({ test, tier }: Opener): void {
  test("every kernel in every option compiles, and two of one name are one", {
    everything: true,
  }, async ({ device: { gpuDevice, info } }) => {
    const dtypes: DType[] = info.float16 ? ["float32", "float16"] : ["float32"];
    const workgroup = tier === "full" ? 256 : 64;
    const walking = (weighings: readonly Weighing[]) =>
      tilesOf(workgroup).flatMap((tile) => kernelsOf(dtypes, tile, weighings));
    const weighings = [...combinations({
      ...{ weights: ["perPlace", "perSample"] as const, weightsDtype: dtypes },
    })];
    const plain = walking([UNWEIGHTED]);
    const names = new Set(plain.map(({ name }) => name));
    const weighted = walking(weighings).filter(({ name }) => !names.has(name));
    const kernels = [...plain, ...covering(weighted), ...mergersOf(channelTile(workgroup))];
    // The compiler of the language reads all of them; a software driver takes a fifth of a second for each.
    const isSlow = info.isFallbackAdapter && tier !== "full";
    const built = new Set(covering(kernels, isSlow ? 1 : 2).map(({ name }) => name));
    const codes = new Map<string, string>();
    const failures = createFailures(gpuDevice);
    const programs = createPrograms(gpuDevice, failures);
    for (const kernel of kernels) {
      assert.equal(codes.get(kernel.name) ?? kernel.code, kernel.code, kernel.name);
      codes.set(kernel.name, kernel.code);
      if (built.has(kernel.name)) programs.of(kernel);
    }
    // One report for many: what waits for a thousand of them looks at all again and again.
    const read = kernels.filter(({ name }) => !built.has(name));
    for (let from = 0; from < read.length; from += TOGETHER) {
      failures.guard("compile kernels", [], () => {
        for (const { name: label, code } of read.slice(from, from + TOGETHER)) {
          gpuDevice.createShaderModule({ label, code });
        }
      });
    }
    assert.equal(codes.size, kernels.length, "every choice is in the name");
    await failures.reported();
    failures.check();
  });
}
