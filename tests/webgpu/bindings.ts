/** The way between the library's tensors and buffers of one's own, and what an open batch means for it. */

import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  DeviceError,
  initBatchNorm,
  referenceDevice,
  region,
  release,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  requestWebGpuDevice,
  unwrap,
  type WebGpuDevice,
  webgpuDevice,
  type WebGpuOptions,
  wrap,
} from "../../kernels/webgpu_device.ts";
import { normalArray } from "../random.ts";
import type { Opener } from "../webgpu_kit.ts";

const [STORAGE, COPY] = [0x80, 0x4 | 0x8];

/** A kernel of somebody who knows nothing of the library: doubles every float32 of one range into another. */
function double(
  { gpuDevice }: WebGpuDevice,
  input: GPUBufferBinding,
  output: GPUBufferBinding,
): void {
  const code = `
    @group(0) @binding(0) var<storage, read> x: array<f32>;
    @group(0) @binding(1) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < arrayLength(&y)) { y[id.x] = 2.0 * x[id.x]; }
    }`;
  const pipeline = gpuDevice.createComputePipeline({
    layout: "auto",
    compute: { module: gpuDevice.createShaderModule({ code }), entryPoint: "main" },
  });
  const group = gpuDevice.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: input }, { binding: 1, resource: output }],
  });
  const encoder = gpuDevice.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(4);
  pass.end();
  gpuDevice.queue.submit([encoder.finish()]);
}

/** Registers the tests of bindings. */
export function bindingTests({ test, gpu }: Opener): void {
  const bufferOf = (device: WebGpuDevice, values: Float32Array<ArrayBuffer>, offset = 0) => {
    const size = Math.max(256, offset + values.byteLength);
    const buffer = device.gpuDevice.createBuffer({ size, usage: STORAGE | COPY });
    device.gpuDevice.queue.writeBuffer(buffer, offset, values);
    return buffer;
  };

  test("unwrap() and wrap() let kernels of one's own stand between layers, without a copy", {
    everything: false,
  }, async ({ device, recording }) => {
    const state = initBatchNorm(device, 2, { eps: 0 });
    const x = tensor(device, [1, 10, 3, 30], [2, 2]);
    const buffer = bufferOf(device, new Float32Array(4));
    const start = recording.counts();
    const first = batchNormForward(state, x, { device });
    double(device, unwrap(first.output), { buffer, size: 16 });
    const middle = wrap(device, { buffer, size: 16 }, [2, 2]);
    const second = batchNormForward(state, middle, { device });
    const counts = recording.counts();
    assert.deepEqual([counts.maps, counts.copies, counts.submits - start.submits], [0, 0, 3]);
    assert.deepEqual(await toArray(device, middle), Float32Array.of(-2, -2, 2, 2));
    assert.deepEqual(await toArray(device, second.output), Float32Array.of(-1, -1, 1, 1));
    assert(first.state.runningMean && first.saved.weight);
    assert.equal(unwrap(first.saved.weight).size, 8, "vectors too");
  });

  test("wrap() takes a part of a buffer that begins at any element", {
    everything: true,
  }, async ({ device }) => {
    const values = Float32Array.of(1, 2, 3, 4, 5, 6);
    const buffer = bufferOf(device, values, 1028);
    const x = wrap(device, { buffer, offset: 1028 }, [3, 2]);
    assert.deepEqual(await toArray(device, x), values);
    const state = initBatchNorm(device, 2, { eps: 0 });
    const y = await toArray(device, batchNormForward(state, x, { device }).output);
    const expected = tensor(device, values, [3, 2]);
    assert.deepEqual(
      y,
      await toArray(device, batchNormForward(state, expected, { device }).output),
    );
    assert.deepEqual(unwrap(x), { buffer, offset: 1028, size: 24 });
    const vector = wrap(device, { buffer, offset: 1036, size: 8 }, [1, 2]).data;
    assert.deepEqual(await device.download(vector), Float32Array.of(3, 4));
    if (!device.info.float16) return;
    const halves = device.gpuDevice.createBuffer({ size: 256, usage: STORAGE | COPY });
    device.gpuDevice.queue.writeBuffer(halves, 0, Float16Array.of(9, 1, 2, 3));
    const odd = wrap(device, { buffer: halves, offset: 2 }, [3, 1], { dtype: "float16" });
    assert.deepEqual(await toArray(device, odd), Float32Array.of(1, 2, 3));
    assert.deepEqual(
      await device.download(device.addScaled({ x: odd.data, y: odd.data, scale: 0 })),
      Float32Array.of(1, 2, 3),
    );
    const three = device.upload(Float32Array.of(1, 2, 3), "float16");
    assert.equal(unwrap(three).size, 8, "what can be bound");
  });

  test("a wrapped buffer is the caller's: freed arrays and regions leave it alone", {
    everything: true,
  }, async ({ device }) => {
    const buffer = bufferOf(device, Float32Array.of(1, 2));
    const x = region(device, (scope) => wrap(scope, { buffer }, [2, 1]));
    assert(device.owns(x.data));
    let inner: typeof x | undefined;
    region(device, (scope) => void (inner = wrap(scope, { buffer }, [2, 1])));
    assert(inner && !device.owns(inner.data), "a region's handle makes it the region's");
    assert.throws(() => inner && unwrap(inner), /already freed/);
    release(device, x);
    const again = wrap(device, { buffer }, [2, 1]);
    assert.deepEqual(await toArray(device, again), Float32Array.of(1, 2));
  });

  test("exactBuffers: every result lies alone in a buffer of its size, with the same bits", {
    everything: false,
  }, async ({ device: { gpuDevice } }) => {
    const shape = [8, 3, 7, 7]; // 1,176 values are no size class, and vectors of 3 share a block.
    const numbers = [];
    for (const exactBuffers of [true, false]) {
      using device = webgpuDevice(gpuDevice, { exactBuffers });
      const [x, dy] = [1, 2].map((seed) => tensor(device, normalArray(1176, seed), shape));
      const forward = batchNormForward(initBatchNorm(device, 3), x, { device });
      const back = batchNormBackward(forward.saved, dy, { device });
      const { runningMean, runningVar } = forward.state;
      const arrays = [
        ...[x.data, forward.output.data, back.gradInput.data],
        ...[back.gradWeight, back.gradBias, runningMean, runningVar],
      ].map((array) => array!);
      const places = arrays.map(unwrap);
      if (exactBuffers) {
        for (const { buffer, offset, size } of places) {
          assert.deepEqual([offset, size], [0, buffer.size]);
        }
        assert.equal(new Set(places.map(({ buffer }) => buffer)).size, arrays.length);
      } else assert.notEqual(places[0].size, places[0].buffer.size);
      numbers.push(await Promise.all(arrays.map(device.download)));
    }
    assert.deepEqual(numbers[0], numbers[1]);
  });

  test("wrap() and unwrap() say what does not fit", { everything: false }, ({ device }) => {
    const buffer = bufferOf(device, new Float32Array(64));
    const other = device.gpuDevice.createBuffer({ size: 256, usage: COPY });
    const reference = referenceDevice();
    const calls: [() => unknown, RegExp][] = [
      [() => wrap(device, { buffer: other }, [2, 2]), /usage must include GPUBufferUsage.STORAGE/],
      [() => wrap(device, { buffer }, [65, 1]), /65 float32 are 260 bytes.*current size is 256/],
      [() => wrap(device, { buffer, offset: 2 }, [2, 2]), /offset must be a multiple of 4/],
      [() => wrap(device, { buffer, offset: -4 }, [2, 2]), /offset must be a multiple of 4/],
      [() => wrap(device, { buffer, offset: 128, size: 8 }, [2, 2]), /current size is 8/],
      [() => wrap(device, { buffer, size: 32 }, [2, 2]), /current size is 32/],
      [() => wrap(device, { buffer, size: NaN }, [2, 2]), /current size is NaN/],
      [() => wrap(device, { buffer }, [2]), /rank >= 2/],
      [() => wrap(device, { buffer: null as unknown as GPUBuffer }, [2, 2]), /must be a GPUBuffer/],
      [
        () => wrap(reference as unknown as WebGpuDevice, { buffer }, [2, 2]),
        /device must be able to use memory of others/,
      ],
      [
        () => unwrap(tensor(reference, [1], [1, 1]) as unknown as Parameters<typeof unwrap>[0]),
        /must be one of a WebGPU device/,
      ],
      [
        () => unwrap(null as unknown as Parameters<typeof unwrap>[0]),
        /must be one of a WebGPU device: current value is null/,
      ],
      [() => unwrap(device.moments({ input: tensor(device, [1, 2], [2, 1]) })), /holds moments/],
      [() => webgpuDevice({} as GPUDevice), /must be a GPUDevice/],
      [
        () => webgpuDevice(device.gpuDevice, { maxBindingBytes: 1000 }),
        /must be an integer of 65536/,
      ],
      [
        () => webgpuDevice(device.gpuDevice, { exactBuffers: 1 as unknown as boolean }),
        /exactBuffers must be true, false or left out: current value is 1/,
      ],
      [
        () => webgpuDevice(device.gpuDevice, { plan: {} } as WebGpuOptions),
        /options may be maxBindingBytes, exactBuffers, exact: current one is "plan"/,
      ],
    ];
    for (const [call, text] of calls) assert.throws(call, text);
  });

  test("a wrapped buffer that cannot be copied from is used all the same, but not read back", {
    everything: true,
  }, async ({ device }) => {
    const buffer = device.gpuDevice.createBuffer({ size: 256, usage: STORAGE });
    const x = wrap(device, { buffer }, [2, 2]);
    await assert.rejects(toArray(device, x), /usage of its wrapped buffer must include.*COPY_SRC/);
    assert.deepEqual(
      await device.download(device.addScaled({ x: x.data, y: x.data, scale: 0 })),
      new Float32Array(4),
    );
  });

  test("a batch's device ends with the body, the raw one's too", {
    everything: true,
  }, async ({ device }) => {
    const x = device.upload(Float32Array.of(1, 2));
    const leaked = device.batch?.((d) => d);
    assert(leaked);
    const again = { x, y: x, scale: 0 };
    assert.throws(
      () => leaked.addScaled(again),
      /Cannot launch in the batch as its body has ended/,
    );
    await assert.rejects(leaked.download(x), /Cannot launch in the batch as its body has ended/);
  });

  test("what a batch makes cannot be used outside before it is launched", {
    everything: true,
  }, async ({ device }) => {
    const x = device.upload(Float32Array.of(1, 2));
    const sum = batch(device, (d) => {
      const made = d.addScaled({ x, y: x, scale: 1 });
      assert.throws(() => unwrap(made), /batch that makes it has not been launched yet/);
      const again = { x: made, y: made, scale: 0 };
      assert.throws(() => device.addScaled(again), /has not been launched yet/);
      const t = tensor(d, [1, 2], [2, 1]);
      const { saved } = batchNormForward(initBatchNorm(d, 1), t, { device: d });
      const { gradWeight } = batchNormBackward(saved, t, { device: d });
      assert.throws(() => gradWeight && unwrap(gradWeight), /has not been launched yet/);
      return d.addScaled(again);
    });
    assert.deepEqual(await device.download(sum), Float32Array.of(2, 4));
    assert.equal(unwrap(sum).size, 8);
    let leaked: typeof sum | undefined;
    assert.throws(() =>
      device.batch?.((d) => {
        leaked = d.addScaled({ x, y: x, scale: 0 });
        throw new Error("the body's own");
      }), /the body's own/);
    assert(leaked && device.owns(leaked));
  });

  test("requestWebGpuDevice() gives a device with the adapter's limits, and ends it", {
    everything: true,
  }, async () => {
    const adapter = await gpu.requestAdapter();
    let lost: Promise<GPUDeviceLostInfo>;
    {
      await using device = await requestWebGpuDevice({ gpu, requiredFeatures: [] });
      const { gpuDevice } = device;
      lost = gpuDevice.lost;
      for (const name of ["maxBufferSize", "maxStorageBufferBindingSize"] as const) {
        assert.equal(gpuDevice.limits[name], adapter?.limits[name]);
      }
      assert.equal(device.info.float16, adapter?.features.has("shader-f16"));
      assert.equal(device.info.isFallbackAdapter, adapter?.info.isFallbackAdapter);
      const x = tensor(device, [1, 2], [2, 1]);
      assert.deepEqual(await toArray(device, x), Float32Array.of(1, 2));
    }
    assert.equal((await lost).reason, "destroyed");
    {
      using device = await requestWebGpuDevice({ gpu });
      lost = device.gpuDevice.lost;
    }
    assert.equal((await lost).reason, "destroyed", "without waiting too");
  });

  test("requestWebGpuDevice() says what is missing", { everything: false }, async () => {
    const unsupported = (text: RegExp) => (error: unknown) =>
      error instanceof DeviceError && error.code === "unsupported" && text.test(error.message);
    const none = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
    await assert.rejects(
      requestWebGpuDevice({ gpu: {} as GPU }),
      unsupported(/has no WebGPU: pass another implementation/),
    );
    await assert.rejects(requestWebGpuDevice({ gpu: none, maxBindingBytes: 1 }), RangeError);
    await assert.rejects(requestWebGpuDevice({ gpu: none }), unsupported(/there is no adapter/));
    const requiredFeatures = ["texture-compression-none" as GPUFeatureName];
    await assert.rejects(
      requestWebGpuDevice({ gpu, requiredFeatures }),
      unsupported(/must have the features texture-compression-none: current ones are/),
    );
  });
}
