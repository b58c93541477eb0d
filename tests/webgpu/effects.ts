/** What the device asks of a GPUDevice: dispatches, submits, maps, buffers, and nothing twice. */

import assert from "node:assert/strict";
import {
  allReduceGradients,
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  initBatchNorm,
  type ReduceGroup,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormBackwardAll,
  syncBatchNormForward,
  syncBatchNormForwardAll,
  tensor,
  toArray,
} from "../../mod.ts";
import { createFailures } from "../../kernels/webgpu/failures.ts";
import { createMemory } from "../../kernels/webgpu/memory.ts";
import { createBindGroups } from "../../kernels/webgpu/programs.ts";
import { wrap } from "../../kernels/webgpu_device.ts";
import { difference } from "../recording_gpu.ts";
import { normalArray } from "../random.ts";
import type { Opener } from "../webgpu_kit.ts";

/** One rank whose partner sends what it sends itself, so that nothing else is counted. */
const group: ReduceGroup = {
  worldSize: 2,
  allReduce: async (local, combine) => combine(await local, await local),
};

/** Registers the tests of effects. */
export function gpuEffectTests(opener: Opener): void {
  const { test } = opener;
  // With the limits of every GPUDevice: eight storage buffers for a kernel.
  test("local calls: 2 dispatches and running statistics, 1 submit, no map", {
    everything: false,
  }, ({ device, recording }) => {
    assert.equal(device.gpuDevice.limits.maxStorageBuffersPerShaderStage, 8);
    const state = initBatchNorm(device, 3);
    const [x, residual] = [1, 2].map((seed) => tensor(device, normalArray(60, seed), [4, 3, 5]));
    const expect = <T>(what: string, dispatches: number, body: () => T): T => {
      const { counts, result } = recording.during(body);
      const { submits, maps, copies } = counts;
      assert.deepEqual(
        { submits, maps, copies, dispatches: counts.dispatches },
        { submits: 1, maps: 0, copies: 0, dispatches },
        what,
      );
      return result;
    };
    const fused = { activation: "relu", residual } as const;
    for (const options of [{}, { activation: "relu" } as const, { residual }, fused]) {
      const forward = expect("forward", 3, () => batchNormForward(state, x, { device }, options));
      expect("backward", 2, () => batchNormBackward(forward.saved, x, { device }));
      expect("inference", 1, () => batchNormInfer(state, x, { device }, options));
    }
    expect("its gradients", 2, () => batchNormInferBackward(state, x, x, { device }));
    const frozen = initBatchNorm(device, 3, { trackRunningStats: false });
    expect("untracked forward", 2, () => batchNormForward(frozen, x, { device }, fused));
    expect("a batch of three layers and back", 3 * 3 + 2 * 2, () =>
      batch(device, (d) => {
        const layers = [0, 1, 2].map(() => batchNormForward(state, x, { device: d }));
        batchNormBackward(layers[0].saved, x, { device: d });
        batchNormBackward(layers[1].saved, x, { device: d });
      }));
  });

  test("synchronised calls: 1 map and at most 2 submits per direction", {
    everything: false,
  }, async ({ device, recording }) => {
    const state = initBatchNorm(device, 3);
    const [x, residual] = [1, 2].map((seed) => tensor(device, normalArray(60, seed), [4, 3, 5]));
    for (const options of [{}, { activation: "relu", residual } as const]) {
      const start = recording.counts();
      const forward = await syncBatchNormForward(state, x, { device, group }, options);
      const half = recording.counts();
      await syncBatchNormBackward(forward.saved, x, { device, group });
      const end = recording.counts();
      for (const counts of [difference(half, start), difference(end, half)]) {
        assert.deepEqual([counts.maps, counts.copies, counts.submits], [1, 1, 2]);
      }
    }
  });

  test("parallel branches: 1 map and at most 2 submits per direction, however many", {
    everything: true,
  }, async ({ device, recording }) => {
    const branches = [3, 1, 300].map((channels) => ({
      state: initBatchNorm(device, channels),
      input: tensor(device, normalArray(4 * channels, channels), [4, channels]),
    }));
    const start = recording.counts();
    const forward = await syncBatchNormForwardAll(branches, { device, group });
    const half = recording.counts();
    await syncBatchNormBackwardAll(
      forward.map(({ saved }, i) => ({ saved, gradOutput: branches[i].input })),
      { device, group },
    );
    const end = recording.counts();
    for (const counts of [difference(half, start), difference(end, half)]) {
      assert.deepEqual([counts.maps, counts.copies, counts.submits], [1, 3, 2]);
    }
  });

  test("large readbacks of one batch have buffers of their own", {
    everything: true,
  }, async ({ device, recording }) => {
    const lengths = [5, 300_000, 7, 200_000, 100_000];
    const arrays = lengths.map((length, i) => normalArray(length, i));
    const start = recording.counts();
    const { reads } = batch(device, (d) => ({
      reads: arrays.map((values) => d.download(d.upload(values))),
    }));
    assert.deepEqual(await Promise.all(reads), arrays);
    const { maps, submits } = difference(recording.counts(), start);
    assert.deepEqual([maps, submits], [4, 1]); // 1 MiB: the 7 and the 200,000 are together.
  });

  test("gradients of a whole tree: 1 map, 1 submit", {
    everything: true,
  }, async ({ device, recording }) => {
    const vectors = [3, 1, 0, 300].map((length) => device.upload(normalArray(length, length)));
    const half = device.info.float16 ? ["float16" as const] : [];
    const kernels = half.map((dtype) => tensor(device, [1, 2, 3], [1, 3], { dtype }));
    const start = recording.counts();
    const tree = await allReduceGradients({ vectors, kernels }, { device, group });
    const { maps, submits } = difference(recording.counts(), start);
    assert.deepEqual([maps, submits], [1, 1]);
    for (const [i, vector] of vectors.entries()) {
      assert.deepEqual(await device.download(tree.vectors[i]), await device.download(vector));
    }
    for (const kernel of tree.kernels) {
      assert.deepEqual(await toArray(device, kernel), Float32Array.of(1, 2, 3));
    }
  });

  test("an empty batch launches nothing", { everything: true }, async ({ device, recording }) => {
    const state = initBatchNorm(device, 3);
    const empty = tensor(device, [], [0, 3, 5]);
    const { counts } = recording.during(() => {
      const options = { activation: "relu", residual: empty } as const;
      const forward = batchNormForward(state, empty, { device }, options);
      batchNormBackward(forward.saved, empty, { device });
      batchNormInfer(state, empty, { device }, options);
      batchNormInferBackward(state, empty, empty, { device }, options);
      device.addScaled({ x: empty.data, y: empty.data, scale: 1 });
    });
    assert.deepEqual([counts.submits, counts.dispatches, counts.maps], [0, 0, 0]);
    const start = recording.counts();
    await runRanks(2, async (group) => {
      const forward = await syncBatchNormForward(state, empty, { device, group });
      await syncBatchNormBackward(forward.saved, empty, { device, group });
    });
    const { submits, dispatches, maps } = difference(recording.counts(), start);
    assert.deepEqual([submits, dispatches, maps], [0, 0, 0], "nothing to read back of nothing");
    assert.equal((await toArray(device, empty)).length, 0);
  });

  trainingLoopTest(opener);

  test("synchronised steps of every kind allocate and bind once", {
    everything: true,
  }, async ({ device, recording }) => {
    // Long enough for several slices per channel.
    const x = tensor(device, normalArray(2 * 3 * 5_003, 1), [2, 3, 5_003]);
    for (const options of [{}, { scale: false }, { bias: false }, { affine: false }]) {
      const state = initBatchNorm(device, 3, options);
      const step = () =>
        region(device, async (scope) => {
          const effects = { device: scope, group };
          const forward = await syncBatchNormForward(state, x, effects);
          await syncBatchNormBackward(forward.saved, x, effects);
          const moments = scope.moments({ input: x });
          scope.merge(moments, moments);
        });
      for (let i = 0; i < 6; i++) await step();
      const before = recording.counts();
      for (let i = 0; i < 10; i++) await step();
      const { buffers, destroyed, bindGroups } = difference(recording.counts(), before);
      assert.deepEqual([buffers, destroyed, bindGroups], [0, 0, 0], JSON.stringify(options));
    }
    const before = recording.counts();
    for (let i = 0; i < 20; i++) await toArray(device, x);
    assert(difference(recording.counts(), before).buffers <= 1, "readbacks give their blocks back");
  });

  test("a block that a batch frees is nobody else's before the batch is launched", {
    everything: true,
  }, async ({ device }) => {
    for (const nested of [false, true]) {
      const x = device.upload(Float32Array.of(1, 2));
      const [sum, fresh] = batch(device, (d) => {
        const scratch = d.addScaled({ x, y: x, scale: 0 });
        const sum = d.addScaled({ x: scratch, y: scratch, scale: 1 });
        d.free(scratch);
        // A launch of its own meanwhile.
        if (nested) device.free(device.addScaled({ x, y: x, scale: 0 }));
        return [sum, d.upload(Float32Array.of(8, 9))];
      });
      assert.deepEqual(await device.download(sum), Float32Array.of(2, 4));
      assert.deepEqual(await device.download(fresh), Float32Array.of(8, 9));
    }
  });

  test("memory forgets what was bound of a block that it destroys or hands back", {
    everything: true,
  }, ({ device: { gpuDevice } }) => {
    const gone: number[] = [];
    const failures = createFailures(gpuDevice);
    const memory = createMemory(gpuDevice, failures, ({ id }) => gone.push(id));
    const buffer = gpuDevice.createBuffer({ size: 256, usage: 0x80 });
    const borrowed = memory.borrow(buffer);
    borrowed.owners = 1;
    assert.equal(memory.borrow(buffer), borrowed, "one buffer, one block");
    borrowed.owners = 0;
    memory.release(borrowed);
    assert.deepEqual(gone.splice(0), [borrowed.id]);
    const launched = memory.hold();
    const again = memory.borrow(buffer);
    memory.release(again);
    assert.equal(gone.length, 0, "an open batch may still bind it");
    launched();
    assert.deepEqual(gone.splice(0), [again.id]);

    const large = [9, 10, 11, 12].map((MiB) => memory.allocate(MiB * 2 ** 20, "storage"));
    large.forEach(memory.release);
    const [first] = large;
    const more = memory.allocate(60 * 2 ** 20, "storage");
    assert.equal(gone.length, 0, "42 MiB idle, 60 in use");
    const next = memory.allocate(200 * 2 ** 20, "storage");
    [more, next].forEach(memory.release);
    assert.equal(gone.length, 0, "302 MiB idle, 260 in use at once");
    for (const MiB of [100, 110, 90]) memory.release(memory.allocate(MiB * 2 ** 20, "storage"));
    assert(gone.includes(first.id), "the longest idle goes first");
    assert(!gone.includes(next.id), "524 MiB may be idle, and 500 are");
    const { maxBufferSize } = gpuDevice.limits;
    const largest = memory.allocate(maxBufferSize - 4, "readback");
    assert(largest.bytes >= maxBufferSize - 4 && largest.bytes <= maxBufferSize);
    memory.close();
    assert.equal(memory.release(largest), undefined, "closed meanwhile");
  });

  test("bind groups differ by what they bind, and are at most some thousands", {
    everything: true,
  }, ({ device: { gpuDevice }, recording }) => {
    const groups = createBindGroups(gpuDevice);
    const layout = gpuDevice.createBindGroupLayout({
      entries: [{ binding: 0, visibility: 4, buffer: { type: "storage" } }],
    });
    const block = {
      ...{ id: 1, bytes: 2 ** 21, purpose: "storage", owners: 1 } as const,
      buffer: gpuDevice.createBuffer({ size: 2 ** 21, usage: 0x80 }),
    };
    const of = (offset: number, size: number, signature = "read_write") =>
      groups.of(layout, signature, [{ block, offset, size }]);
    const first = of(0, 256);
    assert.equal(of(0, 256), first);
    assert.notEqual(of(256, 256), first);
    assert.notEqual(of(0, 512), first);
    assert.notEqual(of(0, 256, "other"), first);
    for (let i = 0; i < 5_000; i++) of(256 * i, 256);
    assert.notEqual(of(0, 512, "other"), first);
    const { counts } = recording.during(() => of(0, 512));
    assert.equal(counts.bindGroups, 1, "the least recently used is gone");
    const kept = of(256 * 4_999, 256);
    assert.equal(recording.during(() => of(256 * 4_999, 256)).counts.bindGroups, 0);
    groups.forget(block);
    assert.notEqual(of(256 * 4_999, 256), kept);
  });

  test("idle buffers are at most twice as many bytes as were in use at once", {
    everything: true,
  }, ({ device, recording }) => {
    const MiB = 2 ** 20;
    for (let size = 1; size < 33; size++) {
      device.free(device.upload(new Float32Array(size * MiB / 4)));
    }
    const { buffers, destroyed } = recording.counts();
    // 32 in use at once: 64 and the 4 that are not counted may be idle, of 528 in all.
    assert(buffers - destroyed <= 4, `${buffers - destroyed} of ${buffers} buffers are alive`);
    device.free(device.upload(new Float32Array(100)), device.upload(new Float32Array(100)));
  });

  test("a freed buffer that was wrapped is bound by nothing any more", {
    everything: true,
  }, ({ device, recording }) => {
    const buffer = device.gpuDevice.createBuffer({ size: 256, usage: 0x80 });
    const state = initBatchNorm(device, 2, { trackRunningStats: false });
    const step = () => {
      const x = wrap(device, { buffer }, [16, 2, 2]);
      region(device, (scope) => void batchNormForward(state, x, { device: scope }));
      release(device, x);
    };
    step();
    const first = recording.during(step).counts;
    const x = wrap(device, { buffer }, [16, 2, 2]);
    const forward = () =>
      region(device, (scope) => void batchNormForward(state, x, { device: scope }));
    for (let i = 0; i < 3; i++) forward();
    const kept = recording.during(forward).counts;
    assert(first.bindGroups > 0, "bind groups went with the wrapped array, and came again");
    assert.equal(kept.bindGroups, 0, "as long as it lives they stay");
    assert.equal(first.destroyed, 0, "somebody else's buffer is not destroyed");
  });

  test("disposing gives everything back, and only that", {
    everything: true,
  }, async ({ device, recording, close }) => {
    const own = device.gpuDevice.createBuffer({ size: 256, usage: 0x80 });
    const x = wrap(device, { buffer: own }, [16, 2, 2]);
    const state = initBatchNorm(device, 2);
    await toArray(device, batchNormForward(state, x, { device }).output).catch(() => {});
    device[Symbol.dispose]();
    const { buffers, destroyed } = recording.counts();
    assert.equal(destroyed, buffers - 1, "all but the wrapped one");
    assert.throws(() => batchNormInfer(state, x, { device }), /was disposed/);
    await close();
  });
}

/** Registers the test of a long training loop, the one of these that the full tier has at length. */
export function trainingLoopTest({ test, tier }: Opener): void {
  test("a training loop compiles, binds and allocates once", {
    everything: true,
  }, ({ device, recording }) => {
    const x = tensor(device, normalArray(60, 1), [4, 3, 5]);
    let state = initBatchNorm(device, 3);
    const step = () => {
      const next = region(device, (scope) => {
        const forward = batchNormForward(state, x, { device: scope }, { activation: "relu" });
        batchNormBackward(forward.saved, forward.output, { device: scope });
        return forward.state;
      });
      release(device, state, { keep: next });
      state = next;
    };
    for (let i = 0; i < 4; i++) step();
    // At length: more steps than bind groups are remembered.
    const steps = tier === "full" ? 5_000 : 100;
    const { counts } = recording.during(() => {
      for (let i = 0; i < steps; i++) step();
    });
    const { submits, buffers, destroyed, bindGroups, pipelines, maps } = counts;
    assert.deepEqual(
      { submits, buffers, destroyed, bindGroups, pipelines, maps },
      { submits: 2 * steps, buffers: 0, destroyed: 0, bindGroups: 0, pipelines: 0, maps: 0 },
    );
  });
}
