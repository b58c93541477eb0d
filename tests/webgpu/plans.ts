/** The plan: what it says, what it refuses, the order of groups, and that no choice changes a result but for rounding. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { batchNormBackward, batchNormForward, initBatchNorm, tensor, toArray } from "../../mod.ts";
import type { Block } from "../../kernels/webgpu/memory.ts";
import { inGroups, type Ordered } from "../../kernels/webgpu/order.ts";
import { explain, unwrap, webgpuDevice } from "../../kernels/webgpu_device.ts";
import { normalArray } from "../random.ts";
import type { Opener } from "../webgpu_kit.ts";

interface Launch extends Ordered {
  readonly name: string;
}

/** Launches of a walk over groups of channels, each in so many windows. */
function walkOf(
  name: string,
  groups: number,
  windows: number,
  bound: Ordered["bound"],
): readonly Launch[] {
  const walk = {};
  return Array.from(
    { length: windows },
    (_, window) =>
      Array.from({ length: groups }, (_, group): Launch => ({
        ...{ name: `${name}${group}${window}`, walk, bound },
        channels: [4 * group, 4 * group + 4],
      })),
  ).flat();
}

const blockOf = (id: number) => ({ id }) as Block;
const [x, parts, y] = [0, 1, 2].map(blockOf);
const READS = [{ block: x, written: false }, { block: parts, written: true }];
const WRITES = [{ block: x, written: false }, { block: parts, written: false }, {
  block: y,
  written: true,
}];

/** Registers the tests. */
export function planTests({ test }: Opener): void {
  test("groups of channels go through both walks one after the other, windows together", {
    everything: false,
  }, () => {
    const names = (launches: readonly Launch[]) => launches.map(({ name }) => name).join(" ");
    const first = walkOf("m", 3, 2, READS);
    const second = walkOf("n", 3, 1, WRITES);
    const last: Launch = { name: "r", walk: null, channels: [0, 0], bound: READS };
    assert.equal(
      names(inGroups([...first, ...second, last])),
      "m00 m01 n00 m10 m11 n10 m20 m21 n20 r",
    );
    // Not with other groups, with something in between, with one group, or where the second writes what the first reads.
    for (
      const launches of [
        [...first, ...walkOf("n", 2, 1, WRITES)],
        [...first, last, ...second],
        [...walkOf("m", 1, 2, READS), ...walkOf("n", 1, 1, WRITES)],
        [...first, ...walkOf("n", 3, 1, [{ block: x, written: true }])],
      ]
    ) {
      assert.equal(names(inGroups(launches)), names(launches));
    }
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 6 }), (counts) => {
      const launches = counts.flatMap((groups, i) =>
        walkOf(`w${i}`, groups, 1, i % 2 ? WRITES : READS)
      );
      const ordered = inGroups(launches);
      assert.deepEqual(new Set(ordered), new Set(launches));
      assert.equal(ordered.length, launches.length);
    }));
  });

  test("a plan says what is launched, and what it would be with other choices", {
    everything: true,
  }, async ({ device, recording }) => {
    const shape = [4, 6, 8, 8];
    const plan = explain(device, shape);
    assert.equal(plan.pack, "places");
    assert.deepEqual(plan.groups, { forward: 1, backward: 1 });
    assert.deepEqual(plan.passes, { forward: 3, backward: 5 });
    assert.equal(explain(device, [4, 6, 3, 3]).pack, "none");
    assert.equal(explain(device, [4, 6, 4], { format: "channelsLast" }).pack, "none");
    assert.equal(explain(device, [4, 8, 3], { format: "channelsLast" }).pack, "channels");
    assert.equal(explain(device, [4, 8]).pack, "channels");
    const gated = explain(device, shape, { activation: true });
    assert.deepEqual([gated.gate, gated.passes], ["mask", { forward: 3, backward: 5 }]);
    const unpacked = explain(device, [4, 6, 3, 3], { activation: true });
    assert.deepEqual([unpacked.gate, unpacked.passes], ["output", { forward: 3, backward: 7 }]);
    assert.equal(plan.gate, null);
    assert.throws(() => explain(device, [0, 6]), RangeError);
    assert.throws(() => explain(device, [6]), TypeError);

    // 0.4 of 8 KiB hold three channels of 4 * 64 float32.
    const plans = { cacheBytes: 8192 };
    using grouped = webgpuDevice(recording.gpuDevice, { plan: plans });
    const other = explain(grouped, shape);
    assert.deepEqual(other.groups, { forward: 2, backward: 6 });
    assert.deepEqual(other.passes, { forward: 2, backward: 3 });
    assert.equal(other.choices.cacheBytes, 8192);
    const input = tensor(grouped, normalArray(1536, 1), shape);
    const before = recording.counts().dispatches;
    const { saved } = batchNormForward(initBatchNorm(grouped, 6), input, { device: grouped });
    const { moments, normalize, gradientSums, gradients } = other;
    const forward = recording.counts().dispatches;
    assert.equal(forward - before, moments.launches + normalize.launches + 1); // And the running statistics.
    batchNormBackward(saved, input, { device: grouped });
    assert.equal(
      recording.counts().dispatches - forward,
      gradientSums.launches + gradients.launches,
    );
    await grouped.download(input.data);
  });

  test("impossible choices are refused by name", { everything: false }, ({ device }) => {
    const refused: readonly [object, RegExp][] = [
      [{ workgroup: 100 }, /the plan's workgroup must be 64, 128 or 256: current value is 100/],
      [{ ahead: 0 }, /ahead must be an integer from 1 to 8/],
      [{ packs: 1 }, /packs must be true or false/],
      [{ masks: "bits" }, /masks must be true or false/],
      [{ subgroups: true }, /subgroups must be "none", "declared" or "implied"/],
      [{ cacheBytes: -1 }, /cacheBytes must be an integer of 0 or more/],
      [{ workGroup: 64 }, /its plan has no choice called workGroup: there are packs, /],
    ];
    for (const [plan, message] of refused) {
      assert.throws(() => webgpuDevice(device.gpuDevice, { plan }), {
        name: "RangeError",
        message,
      });
    }
    using same = webgpuDevice(device.gpuDevice, { plan: { ahead: undefined } });
    assert.deepEqual(explain(same, [2, 2]), explain(device, [2, 2]));
  });

  test("with a mask backward binds no output, which keeps the mask until it is freed", {
    everything: true,
  }, async ({ device, recording }) => {
    const state = initBatchNorm(device, 4, { trackRunningStats: false });
    const shape = [8, 4, 32, 32];
    const x = tensor(device, normalArray(32768, 1), shape);
    const relu = { activation: "relu" } as const;
    const forward = batchNormForward(state, x, { device }, relu);
    // An output that is an array of its own has no mask, and is read.
    const copy = tensor(device, await toArray(device, forward.output), shape);
    const read = batchNormBackward({ ...forward.saved, output: copy }, x, { device });
    const { buffer, offset, size } = unwrap(forward.output);
    device.gpuDevice.queue.writeBuffer(buffer, offset, new Uint8Array(size));
    const masked = batchNormBackward(forward.saved, x, { device });
    const gradients = await toArray(device, masked.gradInput);
    assert.deepEqual(gradients, await toArray(device, read.gradInput));
    const closed = batchNormBackward(
      { ...forward.saved, output: tensor(device, new Float32Array(32768), shape) },
      x,
      { device },
    );
    assert.notDeepEqual(gradients, await toArray(device, closed.gradInput));
    const before = recording.counts().buffers;
    for (let i = 0; i < 20; i++) {
      const { output, saved } = batchNormForward(state, x, { device }, relu);
      device.free(output.data, saved.moments.data);
    }
    assert(recording.counts().buffers - before <= 3, "masks go with their outputs");
    await toArray(device, x);
  });
}
