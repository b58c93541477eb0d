/** What a GPU reports late: lost, out of memory, invalid; in the next awaited call and in every later one, on all ranks. */

import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  CollectiveError,
  type Device,
  DeviceError,
  type DeviceErrorCode,
  initBatchNorm,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import { type WebGpuArray, webgpuDevice, wrap } from "../../kernels/webgpu_device.ts";
import type { Opened, Opener } from "../webgpu_kit.ts";

const coded = (code: DeviceErrorCode, text: RegExp) => (error: unknown) => {
  assert(error instanceof DeviceError, `${error}`);
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};

/** Registers the tests of failures. */
export function failureTests({ test, gpu }: Opener): void {
  const input = <A>(device: Device<A>) => tensor(device, [1, 2, 3, 4], [2, 2]);

  const cases: {
    readonly name: string;
    readonly code: DeviceErrorCode;
    readonly text: RegExp;
    /** Makes the GPU fail in the next launch or allocation. */
    readonly provoke: (opened: Opened) => void;
  }[] = [
    {
      name: "a lost device",
      code: "lost",
      text: /lost.*request a new GPUDevice/,
      provoke: ({ device }) => device.gpuDevice.destroy(),
    },
    {
      name: "a GPU without memory",
      code: "outOfMemory",
      text: /no memory left.*free arrays or use smaller batches/,
      provoke: ({ recording }) => recording.report("out-of-memory", "no memory left"),
    },
    {
      name: "a refused launch",
      code: "validation",
      text: /does not like it.*new handle on the GPUDevice/,
      provoke: ({ recording }) => recording.report("validation", "does not like it"),
    },
    {
      name: "a failing driver",
      code: "internal",
      text: /the driver is tired/,
      provoke: ({ recording }) => recording.report("internal", "the driver is tired"),
    },
  ];
  for (const { name, code, text, provoke } of cases) {
    test(`${name} rejects the next awaited call and every later one`, {
      everything: true,
    }, async (opened) => {
      const { device } = opened;
      const state = initBatchNorm(device, 2);
      const x = input(device);
      await toArray(device, x);
      provoke(opened);
      const reading = Promise.resolve().then(() => {
        const { output } = batchNormForward(state, x, { device });
        return toArray(device, output);
      });
      await assert.rejects(reading, coded(code, text));
      await assert.rejects(async () => await device.download(x.data), coded(code, text));
      assert.throws(() => batchNormForward(state, x, { device }), coded(code, text));
      assert.throws(() => device.batch?.(() => 1), coded(code, text));
      device.free(x.data); // Cleaning up goes on.
      assert(!device.owns(x.data));
    });

    test(
      `${name} reaches all ranks of a synchronised call`,
      { everything: true },
      async (opened) => {
        const other = await opened.again();
        try {
          const errors = await runRanks(3, async (group) => {
            const { device } = group.rank === 1 ? opened : other;
            const state = initBatchNorm(device, 2);
            const x = input(device);
            await syncBatchNormForward(state, x, { device, group });
            if (group.rank === 1) provoke(opened);
            // Of another size and with another kernel, so that there is something to allocate and to compile.
            const larger = tensor(device, new Float32Array(4_000), [1_000, 2, 2]);
            const options = { activation: "relu" } as const;
            return await syncBatchNormForward(state, larger, { device, group }, options).then(
              () => null,
              (error: unknown) => error,
            );
          });
          for (const error of errors) {
            assert(error instanceof CollectiveError, `${error}`);
            assert.deepEqual([error.code, error.ranks], ["rankFailed", [1]]);
            assert(error.cause instanceof DeviceError);
            assert.equal(error.cause.code, code);
          }
        } finally {
          await other.close();
        }
      },
    );
  }

  test(
    "a device lost in the middle of a step: a fresh one goes on from the last copy of the state",
    {
      everything: true,
    },
    async (opened) => {
      const { device } = opened;
      const step = async (device: typeof opened.device, state: BatchNormState<WebGpuArray>) => {
        const x = input(device);
        const { state: next, saved } = batchNormForward(state, x, { device });
        const { gradInput } = batchNormBackward(saved, x, { device });
        return { next, gradient: await toArray(device, gradInput) };
      };
      const first = await step(device, initBatchNorm(device, 2));
      const copy = await stateToHost(device, first.next);
      const expected = await step(device, first.next);
      const expectedState = await stateToHost(device, expected.next);

      const { saved } = batchNormForward(first.next, input(device), { device });
      device.gpuDevice.destroy();
      await assert.rejects(async () => {
        const { gradInput } = batchNormBackward(saved, saved.input, { device });
        await toArray(device, gradInput);
      }, coded("lost", /lost.*go on from the last state that was read back/));
      assert.equal(first.next.numBatchesTracked, 1);

      const fresh = await opened.again();
      try {
        const again = await step(fresh.device, stateFromHost(fresh.device, copy));
        assert.deepEqual(again.gradient, expected.gradient);
        assert.deepEqual(await stateToHost(fresh.device, again.next), expectedState);
      } finally {
        await fresh.close();
      }
    },
  );

  test("a number is not believed before everything about it is reported", {
    everything: true,
  }, async ({ device, recording }) => {
    const x = input(device);
    await toArray(device, x);
    recording.report("validation", "said late", 50);
    await assert.rejects(toArray(device, x), coded("validation", /said late/));
  });

  for (const kind of ["elements", "moments", "sums"] as const) {
    test(`nothing is not believed before everything is reported: ${kind}`, {
      everything: true,
    }, async ({ device, recording }) => {
      const empty = tensor(device, [], [0, 2]);
      const moments = device.moments({ input: empty });
      const statistics = { source: "batch", moments } as const;
      const sums = device.gradientSums({ input: empty, gradOutput: empty, statistics });
      const x = input(device);
      const launch = { x: x.data, y: x.data, scale: 0 };
      await device.download(device.addScaled(launch));
      recording.report("validation", "said late", 50);
      device.addScaled(launch);
      const reading = kind === "elements"
        ? device.download(empty.data)
        : device.toWire(kind === "moments" ? moments : sums);
      await assert.rejects(reading, coded("validation", /said late/));
    });
  }

  test("the first failure stays the reason, for wraps and batches too", {
    everything: true,
  }, async ({ device, recording }) => {
    const x = input(device);
    const buffer = device.gpuDevice.createBuffer({ size: 256, usage: 0x80 });
    recording.report("validation", "the first");
    await assert.rejects(toArray(device, x), coded("validation", /the first/));
    device.gpuDevice.destroy();
    await device.gpuDevice.lost;
    await new Promise((resolve) => setTimeout(resolve, 0));
    const launch = { x: x.data, y: x.data, scale: 0 };
    assert.throws(() => device.addScaled(launch), coded("validation", /the first/));
    assert.throws(() => wrap(device, { buffer }, [2, 2]), coded("validation", /the first/));
  });

  test("a failure in the middle of a batch stops the rest of it", {
    everything: true,
  }, ({ device }) => {
    const x = input(device);
    const body = (d: typeof device) => {
      device[Symbol.dispose]();
      d.addScaled({ x: x.data, y: x.data, scale: 0 });
    };
    assert.throws(() => device.batch?.((d) => body(d as typeof device)), coded("lost", /disposed/));
  });

  test("an empty batch reports a lost device too", { everything: true }, async ({ device }) => {
    const empty = tensor(device, [], [0, 2]);
    const moments = device.moments({ input: empty });
    device.gpuDevice.destroy();
    await device.gpuDevice.lost;
    await assert.rejects(device.toWire(moments), coded("lost", /lost/));
  });

  test("a readback that nobody awaits crashes nobody", { everything: true }, async ({ device }) => {
    const x = input(device);
    assert.throws(() =>
      batch(device, (d) => {
        d.download(x.data);
        throw new Error("the body's own");
      }), /the body's own/);
    device.gpuDevice.destroy();
    device.download(x.data);
    await assert.rejects(device.download(x.data), DeviceError);
  });

  test("what an operation has made is given back when it throws", {
    everything: true,
  }, async ({ device, recording }) => {
    const x = input(device);
    const moments = device.moments({ input: x });
    const [runningMean, runningVar] = [device.upload(Float32Array.of(0, 0)), x.data];
    const sums = device.gradientSums({
      ...{ input: x, gradOutput: x },
      statistics: { source: "batch", moments },
    });
    device.free(runningMean);
    const before = recording.counts().buffers;
    const affine = { weight: null, bias: null, eps: 0 };
    for (let i = 0; i < 20; i++) {
      assert.throws(
        () =>
          device.updateRunningStats({ running: { runningMean, runningVar }, moments, factor: 1 }),
        TypeError,
      );
      const statistics = { source: "running", mean: runningMean, variance: runningVar } as const;
      const pass = { input: x, gradOutput: x, statistics, affine };
      assert.throws(
        () => device.gradients({ ...pass, sums: { local: sums, total: sums } }),
        TypeError,
      );
    }
    assert(recording.counts().buffers - before <= 2);
    const unfit = [1n] as unknown as Float32Array; // Found out once there is room for it.
    for (let i = 0; i < 20; i++) assert.throws(() => device.upload(unfit), TypeError);
    assert(recording.counts().buffers - before <= 2);
    await toArray(device, x);
  });

  test("a lost device is noticed without being asked for numbers", {
    everything: true,
  }, async ({ device }) => {
    const state = initBatchNorm(device, 2);
    const x = input(device);
    device.gpuDevice.destroy();
    await device.gpuDevice.lost;
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert.throws(() => batchNormForward(state, x, { device }), coded("lost", /lost/));
  });

  test("a buffer of another GPUDevice is refused by the GPU, with a type and a cause", {
    everything: true,
  }, async (opened) => {
    const other = await opened.again();
    try {
      const buffer = other.device.gpuDevice.createBuffer({ size: 256, usage: 0x80 });
      const x = wrap(opened.device, { buffer }, [2, 2]);
      const reading = Promise.resolve().then(() => {
        const state = initBatchNorm(opened.device, 2);
        const { output } = batchNormForward(state, x, { device: opened.device });
        return toArray(opened.device, output);
      });
      await assert.rejects(reading, coded("validation", /wrapped buffer does not fit/));
    } finally {
      await other.close();
    }
  });

  test("a new handle on the same GPUDevice goes on after a failure", {
    everything: true,
  }, async (opened) => {
    const { device } = opened;
    opened.recording.report("out-of-memory", "no memory left");
    const x = input(device);
    await assert.rejects(toArray(device, x), coded("outOfMemory", /no memory left/));
    using again = webgpuDevice(device.gpuDevice);
    assert.deepEqual(await toArray(again, input(again)), Float32Array.of(1, 2, 3, 4));
  });

  test("an array larger than a buffer may be is refused before anything happens", {
    everything: false,
  }, async ({ device }) => {
    const { maxBufferSize } = device.gpuDevice.limits;
    const huge = { length: maxBufferSize / 4 + 1 } as Float32Array;
    assert.throws(() => device.upload(huge), coded("outOfMemory", /holds at most.*maxBufferSize/));
    const x = input(device);
    assert.deepEqual(await toArray(device, x), Float32Array.of(1, 2, 3, 4));
  });

  test("float16 without shader-f16 is a typed error", { everything: false }, async ({ device }) => {
    assert.equal(device.info.float16, false);
    const make = () => tensor(device, [1, 2], [2, 1], { dtype: "float16" });
    assert.throws(make, coded("unsupported", /shader-f16.*use float32/));
    const buffer = device.gpuDevice.createBuffer({ size: 256, usage: 0x80 });
    const wrapping = () => wrap(device, { buffer }, [2, 1], { dtype: "float16" });
    assert.throws(wrapping, coded("unsupported", /shader-f16/));
    const adapter = await gpu.requestAdapter();
    assert.equal(device.info.isFallbackAdapter, adapter?.info.isFallbackAdapter);
    assert.match(device.info.name, /^WebGPU \(.+\)$/);
  });
}
