/** Synchronised calls in parts of the channels: the same bits, a readback and a collective per part, failures on all ranks. */

import assert from "node:assert/strict";
import {
  type AllReduce,
  CollectiveError,
  type Format,
  initBatchNorm,
  type ReduceGroup,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import { explain, type WebGpuArray, webgpuDevice } from "../../kernels/webgpu_device.ts";
import type { Device } from "../../mod.ts";
import { normalArray } from "../random.ts";
import { difference } from "../recording_gpu.ts";
import type { Opener } from "../webgpu_kit.ts";

/** Registers the test of what parts compute, in many shapes: hundreds of kernels to compile. */
export function partTests({ test }: Opener): void {
  test("parts of the channels give the bits of all at once, on any rank", {
    everything: true,
  }, async ({ device: { gpuDevice } }) => {
    // In the second, groups of some channels and windows of some samples, which are not the parts.
    const options = [{ plan: {} }, { plan: { cacheBytes: 4096 }, maxBindingBytes: 65_536 }];
    for (
      const [shape, format] of [
        [[4, 20, 6], "channelsFirst"],
        [[4, 20, 6], "channelsLast"],
        [[5, 3, 3, 4], "channelsFirst"],
        [[40, 64, 25], "channelsLast"],
        [[40, 64, 25], "channelsFirst"],
        [[7, 1], "channelsFirst"],
        [[2, 140_000], "channelsFirst"], // More numbers than a call may have arguments.
      ] as const
    ) {
      for (const { plan, ...rest } of shape[1] < 1_000 ? options : options.slice(0, 1)) {
        using whole = webgpuDevice(gpuDevice, { plan, ...rest });
        using parts = webgpuDevice(gpuDevice, { plan: { ...plan, overlap: 3 }, ...rest });
        assert.equal(whole.overlapped, undefined);
        assert.deepEqual([whole, parts].map((device) => explain(device, [2, 2]).overlap), [1, 3]);
        const [expected, actual] = [
          await step(whole, shape, format),
          await step(parts, shape, format),
        ];
        const differ = expected.findIndex((values, i) => `${values}` !== `${actual[i]}`);
        assert.equal(differ, -1, `${shape} ${format} ${JSON.stringify(plan)}`);
      }
    }
  });
}

/** Registers the tests of how parts are reduced. */
export function overlapTests({ test }: Opener): void {
  test("each part is read back and reduced by itself, in order, before the first await", {
    everything: true,
  }, async ({ recording }) => {
    using device = webgpuDevice(recording.gpuDevice, { plan: { overlap: 3 } });
    const labels: string[] = [];
    const lengths: number[] = [];
    const allReduce: AllReduce = async (local, combine, options) => {
      labels.push(`${options?.label}`);
      const wire = await local;
      lengths.push(wire.length);
      return combine(wire, wire);
    };
    const group: ReduceGroup = { worldSize: 2, allReduce };
    const state = initBatchNorm(device, 10);
    const x = tensor(device, normalArray(400, 1), [4, 10, 10]);
    const start = recording.counts();
    const call = syncBatchNormForward(state, x, { device, group });
    const names = [1, 2, 3].map((part) => `syncBatchNormForward C=10 float32 part ${part} of 3`);
    assert.deepEqual(labels, names);
    const { residuals } = await call;
    const half = recording.counts();
    await syncBatchNormBackward(residuals, x, { device, group });
    const end = recording.counts();
    assert.deepEqual(lengths, [9, 9, 5, 8, 8, 4]); // Four, four and two channels.
    for (const counts of [difference(half, start), difference(end, half)]) {
      assert.deepEqual([counts.maps, counts.submits], [3, 4]);
    }
  });

  test("a rank that fails, or has another plan, is an error on all, and the group goes on", {
    everything: true,
  }, async ({ device: { gpuDevice } }) => {
    using device = webgpuDevice(gpuDevice, { plan: { overlap: 2 } });
    using other = webgpuDevice(gpuDevice, { plan: { overlap: 3 } });
    const state = initBatchNorm(device, 8);
    const elsewhere = initBatchNorm(other, 8);
    const make = (device: Device<WebGpuArray>, channels: number) =>
      tensor(device, normalArray(4 * channels, 2), [4, channels]);
    await runRanks(2, async (group) => {
      const bad = make(device, group.rank === 1 ? 9 : 8);
      await assert.rejects(
        syncBatchNormForward(state, bad, { device, group }),
        (error) => {
          assert(error instanceof CollectiveError);
          assert.deepEqual([error.code, error.ranks], ["rankFailed", [1]]);
          assert.match(`${error.cause}`, /its channels must equal numFeatures/);
          return true;
        },
      );
      const { residuals } = await region(
        device,
        (scope) => syncBatchNormForward(state, make(scope, 8), { device: scope, group }),
      );
      assert.equal(residuals.worldSize, 2);
    });
    await runRanks(2, async (group) => {
      const call = group.rank === 0
        ? syncBatchNormForward(state, make(device, 8), { device, group })
        : syncBatchNormForward(elsewhere, make(other, 8), { device: other, group });
      await assert.rejects(call, /part 1 of 2.*part 1 of 3/s);
    });
  });
}

/** A training step of three ranks with uneven batches, one of them empty: everything that it gives. */
async function step(
  device: Device<WebGpuArray>,
  shape: readonly number[],
  format: Format,
): Promise<Float32Array[]> {
  const [samples, channels, ...spatial] = shape;
  const size = channels * spatial.reduce((product, extent) => product * extent, 1);
  const state = initBatchNorm(device, channels);
  const ranks = await runRanks(3, async (group) => {
    const count = [samples, 0, samples + 1][group.rank];
    const [x, dy, residual] = [1, 2, 3].map((seed) =>
      tensor(device, normalArray(count * size, seed + group.rank), [count, channels, ...spatial], {
        format,
      })
    );
    const options = { activation: "relu", residual } as const;
    const forward = await syncBatchNormForward(state, x, { device, group }, options);
    const back = await syncBatchNormBackward(forward.residuals, dy, { device, group });
    return [
      await toArray(device, forward.output),
      await device.download(forward.state.runningMean!),
      await device.download(forward.state.runningVar!),
      await toArray(device, back.gradInput),
      await device.download(back.gradWeight!),
      await device.download(back.gradBias!),
    ];
  });
  return ranks.flat();
}
