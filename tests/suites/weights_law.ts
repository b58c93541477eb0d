/** The law by weights: k ranks are one, masking is removing, a weight of 2 is the row twice. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchNormBackward,
  batchNormForward,
  initBatchNorm,
  region,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON } from "../kit.ts";
import { centralDifferences } from "../oracle.ts";
import { normalArray } from "../random.ts";
import {
  weightAt,
  weightedData,
  weightedOracle,
  type WeightedScenario,
  weightedScenarios,
} from "../weighted.ts";
import { checkWeights, joined, stateOf, trained } from "../weighted_training.ts";
import { weightTestsOf } from "./weights.ts";

/** Registers the law by weights for a device. */
export function weightLaw<A>(kit: DeviceKit<A>): void {
  const test = weightTestsOf(kit);
  const fine = kit.ulps * EPSILON.float32;
  const units = { absolute: 8 * fine, relative: 8 * fine };
  const numRuns = kit.cases === undefined ? 120 : Math.ceil(kit.cases / 3);
  // Beside the ways of the law, of which only the kernels that count are others.
  const ways = kit.ways && Math.ceil(kit.ways / 2);

  test("by weights k ranks are one: outputs, gradients and state are those of the formulas", async (device) => {
    const property = fc.asyncProperty(
      weightedScenarios(device.info.float16, ways),
      (scenario) => checkWeights(kit, device, scenario),
    );
    await fc.assert(property, { numRuns, seed: 25 });
  });

  test("by weights large batches are as exact: long rows, many rows, many channels", async (device) => {
    const plain = { eps: 1e-5, affine: true, relu: false, residual: false, seed: 7 } as const;
    const formats = { gradFormat: "channelsFirst", dtype: "float32" } as const;
    const float16 = device.info.float16 ? "float16" : "float32";
    const all: readonly WeightedScenario[] = [
      ...(["outlierFirst", "offset"] as const).flatMap((spread) =>
        [
          {
            counts: [3],
            channels: 3,
            inner: 5000,
            kind: "weights",
            format: "channelsFirst",
            spread,
          },
          { counts: [40, 3], channels: 70, inner: 9, kind: "mask", format: "channelsLast", spread },
          {
            counts: [700],
            channels: 6,
            inner: 1,
            kind: "perSample",
            format: "channelsFirst",
            spread,
          },
        ] as const
      ).map((scenario) => ({ ...plain, ...formats, ...scenario })),
      {
        ...{ ...plain, ...formats, counts: [9], channels: 300, inner: 8, kind: "weights" },
        ...{
          format: "channelsLast",
          dtype: float16,
          spread: "standard",
          relu: true,
          residual: true,
        },
      },
      {
        ...{ ...plain, ...formats, counts: [2], channels: 2, inner: 9001, kind: "lengths" },
        ...{ format: "channelsFirst", dtype: float16, spread: "standard", relu: true },
      },
    ];
    for (const scenario of all) await checkWeights(kit, device, scenario);
  });

  test("masking is removing: a masked batch is the packed one of what is left", async (device) => {
    const scenarios = weightedScenarios(device.info.float16, ways).map((scenario) => ({
      ...{ ...scenario, relu: false, residual: false },
      kind: scenario.kind === "lengths" ? "lengths" as const : "mask" as const,
    }));
    const property = fc.asyncProperty(scenarios, async (scenario) => {
      const data = weightedData(scenario);
      const { channels: C, inner, dtype } = scenario;
      const kept = [...data.x.keys()].filter((i) => data.weights[weightAt(i, C, inner)] > 0);
      if (kept.length <= C) return;
      // (M, C): channels are fastest.
      kept.sort((a, b) => weightAt(a, C, inner) - weightAt(b, C, inner) || a - b);
      const dy = data.dy.map((value, i) => data.weights[weightAt(i, C, inner)] > 0 ? value : 0);
      const { terms } = weightedOracle(scenario, { ...data, dy });
      const [masked] = joined(await trained(device, scenario, { ...data, dy }));
      await region(device, async (scope) => {
        const put = (values: Float32Array) =>
          tensor(scope, kept.map((i) => values[i]), [kept.length / C, C], { dtype });
        const effects = { device: scope };
        const packed = batchNormForward(stateOf(scope, scenario), put(data.x), effects);
        const back = batchNormBackward(packed.saved, put(dy), effects);
        const slack = (terms: readonly number[]) => ({
          absolute: kept.map((i) => 2 * fine * terms[i] + (dtype === "float16" ? 2 ** -23 : 0)),
          relative: 2 * kit.ulps * EPSILON[dtype],
        });
        const pick = (values: readonly number[]) => kept.map((i) => values[i]);
        assertClose(pick(masked.y), await toArray(scope, packed.output), slack(terms.y), "y");
        assertClose(pick(masked.dx), await toArray(scope, back.gradInput), slack(terms.dx), "dx");
        const [is, wanted] = [masked.state, await stateToHost(scope, packed.state)];
        assertClose(is.runningMean!, wanted.runningMean!, units, "running mean");
        assertClose(is.runningVar!, wanted.runningVar!, units, "running variance");
        assert.equal(is.numBatchesTracked, 1);
      });
    });
    await fc.assert(property, { numRuns: Math.ceil(numRuns / 2), seed: 26 });
  });

  test("a weight of 2 is the row twice, whose copies carry half of dy each", async (device) => {
    const [N, C] = [6, 3];
    const doubles = [1, 2, 1, 2, 2, 1];
    const [x, dy] = [normalArray(N * C, 1, 3, 2), normalArray(N * C, 2)];
    const rows = doubles.flatMap((times, n) => Array<number>(times).fill(n));
    const state = initBatchNorm(device, C);
    const put = (values: readonly number[]) => tensor(device, values, [values.length / C, C]);
    const weights = device.upload(Float32Array.from(doubles));
    const once = batchNormForward(state, put([...x]), { device }, { weights });
    const onceBack = batchNormBackward(once.saved, put([...dy]), { device });
    const repeat = (values: Float32Array, shared: boolean) =>
      rows.flatMap((n) =>
        [...values.slice(n * C, n * C + C)].map((v) => shared ? v / doubles[n] : v)
      );
    const twice = batchNormForward(state, put(repeat(x, false)), { device });
    const twiceBack = batchNormBackward(twice.saved, put(repeat(dy, true)), { device });
    const outputs = await toArray(device, once.output);
    assertClose(repeat(outputs, false), await toArray(device, twice.output), units, "y");
    const summed = new Float32Array(N * C);
    const copies = await toArray(device, twiceBack.gradInput);
    copies.forEach((value, i) => summed[rows[Math.floor(i / C)] * C + i % C] += value);
    assertClose(await toArray(device, onceBack.gradInput), summed, units, "dx");
    for (const name of ["gradWeight", "gradBias"] as const) {
      const [one, two] = [onceBack, twiceBack].map((back) => device.download(back[name]!));
      assertClose(await one, await two, { ...units, absolute: 8 * units.absolute }, name);
    }
    const [one, two] = [once, twice].map(({ state }) => stateToHost(device, state));
    assertClose((await one).runningVar!, (await two).runningVar!, units, "running variance");
    assertClose((await one).runningMean!, (await two).runningMean!, units, "running mean");
  });

  test("gradients by weights equal central differences", async (device) => {
    const [C, L] = [2, 4];
    const scenario: WeightedScenario = {
      ...{ counts: [2, 1], channels: C, inner: L, kind: "weights", eps: 1e-3, affine: true },
      ...{ format: "channelsFirst", gradFormat: "channelsFirst", dtype: "float32" },
      ...{ relu: false, residual: false, spread: "standard", seed: 3 },
    };
    const data = weightedData(scenario);
    const x = data.x.map((value, i) => Number.isNaN(value) ? i / 8 : value);
    const dy = normalArray(x.length, 12);
    const loss = (x: Float64Array) =>
      weightedOracle(scenario, { ...data, x: x as unknown as Float32Array, dy })
        .y.reduce((sum, value, i) => sum + value * dy[i], 0);
    const wanted = centralDifferences(loss, x, 1e-5);
    const [{ dx }] = joined(await trained(device, scenario, { ...data, x, dy }));
    // The differences are good to their step's square, and to the losses' last digits by the step.
    assertClose(
      dx,
      wanted,
      { absolute: 1e-8 + 8 * units.absolute, relative: units.relative },
      "dx",
    );
  });
}
