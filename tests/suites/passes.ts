/** The device's own operations: each array is checked against its place in the pass before a kernel gets it. */

import assert from "node:assert/strict";
import { type Device, initBatchNorm, type Tensor, tensor } from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import {
  momentsWire,
  type Pass,
  type SecondPass,
  sumsWire,
  type TangentsPass,
} from "../../lib/device_author.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

/** Registers the tests of passes for a device. */
export function passSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a pass with an array that does not fit its place is refused by the device itself", (device) => {
    const { device: counted, alive } = census(device);
    const all = passOf(counted);
    const wrong = wrongFields(counted, all);
    const before = alive();
    const operations = {
      moments: counted.moments,
      normalize: counted.normalize,
      gradientSums: counted.gradientSums,
      gradients: counted.gradients,
      tangents: (pass: Pass<A>) => counted.tangents!(tangentsOf(pass)),
      secondGradients: (pass: Pass<A>) => counted.secondGradients!(secondOf(pass)),
    };
    const concerns: Record<keyof typeof operations, readonly string[]> = {
      moments: ["input", "weights"],
      normalize: ["input", "residual", "statistics", "running", "weight", "bias"],
      gradientSums: ["input", "gradOutput", "output", "statistics", "running", "weights"],
      gradients: [
        ...["input", "gradOutput", "output", "statistics", "running", "weight", "bias"],
        ...["local", "total", "weights"],
      ],
      tangents: [
        ...["input", "residual", "output", "statistics", "running", "weight", "bias", "total"],
        "weights",
      ],
      secondGradients: [
        ...["input", "gradOutput", "residual", "output", "statistics", "running", "weight", "bias"],
        ...["local", "total", "weights"],
      ],
    };
    for (const [name, fields] of Object.entries(concerns)) {
      const operation = operations[name as keyof typeof operations] as (pass: Pass<A>) => unknown;
      for (const [what, pass] of wrong.filter(([what]) => fields.includes(what.split(" ")[0]))) {
        assert.throws(() => operation(pass), TypeError, `${name} with ${what}`);
        assert.equal(alive(), before, `${name} with ${what} leaves nothing`);
      }
    }
    const { input, statistics } = all;
    const [three, two] = [3, 2].map((length) => counted.upload(new Float32Array(length)));
    const running = { runningMean: three, runningVar: three };
    const moments = statistics.source === "batch" ? statistics.moments : input.data;
    const advance = counted.updateRunningStats;
    for (
      const pass of [
        { running: { ...running, runningVar: two }, moments, factor: 0.1 },
        { running: { runningMean: two, runningVar: two }, moments, factor: 0.1 },
        { running, moments: input.data, factor: 0.1 },
      ]
    ) assert.throws(() => advance(pass), TypeError);
    assert.throws(() => counted.addScaled({ x: three, y: two, scale: 1 }), TypeError);
    assert.throws(() => counted.addScaled({ x: moments, y: moments, scale: 1 }), TypeError);
    for (const data of [three, moments]) {
      const part = { input: { ...input, data }, from: 0, to: 1 };
      assert.throws(() => counted.arrange!({ parts: [part] }), TypeError);
    }
    assert.throws(() => counted.merge(three, three), TypeError);
    assert.equal(alive(), before + 2);
  });
}

/** A pass with every field, of three channels. */
function passOf<A>(device: Device<A>): Pass<A> {
  const put = (seed: number): Tensor<A> => tensor(device, normalArray(24, seed), [2, 3, 4]);
  const input = put(1);
  const { weight, bias, eps } = initBatchNorm(device, 3);
  const statistics = { source: "batch", moments: device.moments({ input }) } as const;
  const gradOutput = put(2);
  const weights = tensor(device, new Float32Array(8).fill(1), [2, 1, 4]);
  const local = device.gradientSums({ input, gradOutput, statistics });
  return {
    ...{ input, statistics, gradOutput },
    ...(device.info.passes.includes("weights") && { weights }),
    affine: { weight, bias, eps },
    residual: put(3),
    activation: "relu",
    output: rectifiedBy("relu", put(4)),
    residualFormat: "channelsFirst",
    sums: { local, total: local },
  };
}

/** The arrays of a pass in the places that a direction has for them. */
function directionsOf<A>({ input, affine: { bias }, residual }: Pass<A>) {
  return { input, weight: bias, bias, residual };
}

function tangentsOf<A>(pass: Pass<A>): TangentsPass<A> {
  const { affine: { weight }, sums: { total } } = pass;
  const moments = { mean: weight, variance: weight };
  return { ...pass, directions: directionsOf(pass), total, moments };
}

function secondOf<A>(pass: Pass<A>): SecondPass<A> {
  const { sums, sums: { total } } = pass;
  const others = { total, along: sums, products: sums, weighted: total };
  return { ...pass, directions: directionsOf(pass), ...others };
}

/** The same with one array that is too short, too long, or of another kind. */
function wrongFields<A>(device: Device<A>, all: Pass<A>): (readonly [string, Pass<A>])[] {
  const { statistics, affine, sums } = all;
  const lengths = [0, 2, 4, 23, 25].map((length) => device.upload(new Float32Array(length)));
  const [, two, four] = lengths;
  const vector = device.upload(new Float32Array(3));
  const wires = [2, 4].map((channels) => ({
    moments: device.fromWire(momentsWire, new Float64Array(momentsWire.length(channels)).fill(4)),
    sums: device.fromWire(sumsWire, new Float64Array(sumsWire.length(channels))),
  }));
  const moments = statistics.source === "batch" ? statistics.moments : vector;
  const cases: (readonly [string, Pass<A>])[] = [];
  for (const name of ["input", "gradOutput", "output", "residual"] as const) {
    for (const data of [...lengths, moments]) {
      cases.push([`${name} of another length or kind`, {
        ...all,
        [name]: { ...all[name]!, data },
      }]);
    }
    const shape = [2, 3, 5];
    cases.push([`${name} of another shape`, { ...all, [name]: { ...all[name]!, shape } }]);
  }
  if (all.weights) {
    for (const data of [...lengths, moments]) {
      const weights = { ...all.weights, data };
      cases.push(["weights of another length or kind", { ...all, weights }]);
    }
  }
  for (const name of ["weight", "bias"] as const) {
    for (const array of [two, four, moments]) {
      cases.push([`${name} of another length or kind`, {
        ...all,
        affine: { ...affine, [name]: array },
      }]);
    }
  }
  for (const array of [wires[0].moments, wires[1].moments, sums.local, vector]) {
    const other = { source: "batch", moments: array } as const;
    cases.push(["statistics of other channels or kind", { ...all, statistics: other }]);
  }
  for (const [mean, variance] of [[two, vector], [vector, four], [moments, vector]]) {
    const other = { source: "running", mean, variance } as const;
    cases.push(["running statistics of another length or kind", { ...all, statistics: other }]);
  }
  for (const name of ["local", "total"] as const) {
    for (const array of [wires[0].sums, wires[1].sums, moments, vector]) {
      cases.push([`${name} sums of other channels or kind`, {
        ...all,
        sums: { ...sums, [name]: array },
      }]);
    }
  }
  return cases;
}
