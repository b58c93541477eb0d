/** What requestDevice() chooses, and that it says why; a program on either choice. */

import assert from "node:assert/strict";
import {
  type DeviceArray,
  requestDevice,
  type RequestDeviceOptions,
} from "../kernels/request_device.ts";
import { wasmDevice } from "../kernels/wasm_device.ts";
import { unwrap } from "../kernels/webgpu_device.ts";
import {
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  DeviceError,
  initBatchNorm,
  region,
  tensor,
  toArray,
} from "../mod.ts";
import { testsWebgpu } from "./webgpu_kit.ts";

/** What a fake implementation of WebGPU has, and what was asked of it. */
interface Fake {
  readonly gpu: GPU;
  readonly asked: (GPURequestAdapterOptions | undefined)[];
  readonly counts: { opened: number; destroyed: number };
}

/** What the fake does instead of what hardware does. */
interface Behaviour {
  readonly info?: Partial<GPUAdapterInfo>;
  /** null for no adapter at all. */
  readonly requestDevice?: (() => Promise<GPUDevice>) | null;
  readonly lost?: Promise<Pick<GPUDeviceLostInfo, "message">>;
}

/** An implementation whose GPUDevices can be opened and destroyed, and no more. */
function fake({ info = {}, requestDevice, lost = new Promise(() => {}) }: Behaviour = {}): Fake {
  const asked: Fake["asked"] = [];
  const counts = { opened: 0, destroyed: 0 };
  const open = () => {
    counts.opened++;
    return Promise.resolve({
      ...{ features: new Set(), limits: {}, queue: {}, lost },
      createComputePipeline: () => ({}),
      createBindGroupLayout: () => ({}),
      destroy: () => counts.destroyed++,
    });
  };
  const adapter = requestDevice === null ? null : {
    info: { vendor: "acme", architecture: "anvil", device: "", description: "", ...info },
    features: new Set(),
    limits: {},
    requestDevice: requestDevice ?? open,
  };
  const gpu = {
    requestAdapter: (options?: GPURequestAdapterOptions) => {
      asked.push(options);
      return Promise.resolve(adapter);
    },
  };
  return { gpu: gpu as unknown as GPU, asked, counts };
}

/** The real adapter, which says that it is hardware. */
function posing(gpu: GPU): GPU {
  const info = { vendor: "acme", architecture: "anvil", device: "", description: "" };
  const requestAdapter = async (options?: GPURequestAdapterOptions) => {
    const adapter = await gpu.requestAdapter(options);
    return adapter && {
      ...{ info, features: adapter.features, limits: adapter.limits },
      requestDevice: (descriptor: GPUDeviceDescriptor) => adapter.requestDevice(descriptor),
    };
  };
  return { requestAdapter } as unknown as GPU;
}

Deno.test("requestDevice() takes a hardware GPU, and ends it", async () => {
  const { gpu, asked, counts } = fake();
  {
    await using device = await requestDevice({ gpu });
    assert.equal(device.kind, "webgpu");
    assert.equal(device.reason, "there is a hardware GPU");
    assert.equal(device.info.name, "WebGPU (acme anvil)");
    assert(device.kind === "webgpu" && device.handle.gpu === gpu);
    assert(Object.isFrozen(device));
    assert.deepEqual(counts, { opened: 1, destroyed: 0 });
  }
  assert.deepEqual(counts, { opened: 1, destroyed: 1 });
  assert(asked.every((options) => options?.powerPreference === "high-performance"));
  {
    using _device = await requestDevice({ gpu, powerPreference: "low-power" });
    assert.equal(asked.at(-1)?.powerPreference, "low-power");
  }
  assert.deepEqual(counts, { opened: 2, destroyed: 2 });
});

Deno.test("requestDevice() takes Wasm where there is no GPU, and says so", async () => {
  await using none = await requestDevice({ gpu: fake({ requestDevice: null }).gpu });
  assert.deepEqual([none.kind, none.reason], ["wasm", "there is no adapter"]);
  assert.match(none.info.name, /^Wasm SIMD/);
  assert(Object.isFrozen(none));

  Object.defineProperty(navigator, "gpu", { value: undefined, configurable: true });
  try {
    await using without = await requestDevice();
    assert.deepEqual([without.kind, without.reason], ["wasm", "this runtime has no WebGPU"]);
  } finally {
    Reflect.deleteProperty(navigator, "gpu");
  }
});

Deno.test("requestDevice() opens nothing on a software adapter, by whatever it is known", async () => {
  const infos: [Partial<GPUAdapterInfo>, string][] = [
    [{ isFallbackAdapter: true }, "acme"],
    [{ isFallbackAdapter: true, vendor: "", architecture: "" }, "unnamed"],
    [{ isFallbackAdapter: true, description: "llvmpipe (LLVM 15)" }, "llvmpipe (LLVM 15)"],
    [{ description: "llvmpipe (LLVM 15)" }, "llvmpipe (LLVM 15)"],
    [{ vendor: "google", architecture: "swiftshader" }, "swiftshader"],
    [{ description: "SwiftShader Device (Subzero)" }, "SwiftShader Device (Subzero)"],
    [{ device: "Microsoft Basic Render Driver" }, "Microsoft Basic Render Driver"],
  ];
  for (const [info, name] of infos) {
    const { gpu, counts } = fake({ info });
    await using device = await requestDevice({ gpu });
    assert.deepEqual(
      [device.kind, device.reason, counts.opened],
      ["wasm", `the adapter is software (${name})`, 0],
    );
  }
});

Deno.test("requestDevice() takes Wasm where the GPU cannot be opened, and says why", async () => {
  const rejecting = (error: unknown) => fake({ requestDevice: () => Promise.reject(error) });
  const broken = { requestAdapter: () => Promise.reject(new Error("no driver")) };
  const lost = fake({ lost: Promise.resolve({ message: "adapter is gone" }) });
  const calls: [GPU, string][] = [
    [rejecting(new DOMException("out of handles", "OperationError")).gpu, "out of handles"],
    [rejecting("of no class").gpu, "of no class"],
    [broken as unknown as GPU, "no driver"],
    [lost.gpu, "adapter is gone"],
  ];
  for (const [gpu, said] of calls) {
    await using device = await requestDevice({ gpu });
    assert.deepEqual(
      [device.kind, device.reason],
      ["wasm", `the GPU cannot be opened (${said})`],
    );
  }
  assert.deepEqual(lost.counts, { opened: 1, destroyed: 1 });
});

Deno.test("requestDevice() passes options on to Wasm, and its errors back", async () => {
  const { gpu } = fake({ requestDevice: null });
  await using device = await requestDevice({ gpu, wasm: { arithmetic: "reproducible" } });
  assert(device.kind === "wasm");
  assert.deepEqual([device.info.arithmetic, device.info.threads], ["reproducible", 1]);
  await assert.rejects(requestDevice({ gpu, wasm: { threads: 0 } }), RangeError);
});

Deno.test("requestDevice() rejects options that it cannot take", async () => {
  const calls: [unknown, RegExp][] = [
    [null, /options must be a record: current value is null/],
    ["gpu", /options must be a record: current value is "gpu"/],
    [{ gpu: null }, /gpu must be an implementation of WebGPU.*: current value is null/],
    [{ gpu: {} }, /gpu must be an implementation of WebGPU.*: current value is of class Object/],
    [{ powerPreference: "all" }, /powerPreference must be "high-performance" or .*"all"/],
  ];
  for (const [options, message] of calls) {
    await assert.rejects(requestDevice(options as RequestDeviceOptions), (error) => {
      assert(error instanceof TypeError);
      assert.match(error.message, /^Cannot request a device as /);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("requestDevice() says that there is neither a GPU nor Wasm SIMD", async () => {
  const { validate } = WebAssembly;
  WebAssembly.validate = () => false;
  try {
    await assert.rejects(requestDevice({ gpu: fake({ requestDevice: null }).gpu }), (error) => {
      assert(error instanceof DeviceError && error.code === "unsupported");
      assert.match(
        error.message,
        /hardware GPU or Wasm SIMD: there is no adapter, and Wasm SIMD cannot be had \(.*WebAssembly with SIMD/,
      );
      assert(error.cause instanceof DeviceError);
      return true;
    });
    const { gpu } = fake();
    await using device = await requestDevice({ gpu });
    assert.equal(device.kind, "webgpu", "a GPU needs no Wasm");
  } finally {
    WebAssembly.validate = validate;
  }
});

/** A program that does not know which device it has; its annotation is part of the test. */
async function train(options: RequestDeviceOptions): Promise<readonly number[]> {
  await using device = await requestDevice(options);
  const state: BatchNormState<DeviceArray> = initBatchNorm(device, 1, { eps: 0 });
  return await region(device, async (scope) => {
    const x = tensor(scope, [1, 3], [2, 1]);
    const { output, saved } = batchNormForward(state, x, { device: scope });
    const { gradBias } = batchNormBackward(saved, x, { device: scope });
    assert(gradBias !== null && device.owns(gradBias));
    return [...await toArray(scope, output), ...await scope.download(gradBias)];
  });
}

Deno.test("a program runs on Wasm as requestDevice() opened it", async () => {
  // 1 and 3 about their mean in units of their deviation, and their sum: exact in float32.
  assert.deepEqual(await train({ gpu: fake({ requestDevice: null }).gpu }), [-1, 1, 4]);
});

Deno.test("a requested device and its handle have the same arrays, and end together", async () => {
  const device = await requestDevice({ gpu: fake({ requestDevice: null }).gpu });
  assert(device.kind === "wasm");
  const x = device.upload(Float32Array.of(1, 2));
  assert(device.handle.owns(x));
  await device[Symbol.asyncDispose]();
  assert.throws(
    () => device.handle.upload(Float32Array.of(1)),
    (error) => error instanceof DeviceError && error.code === "lost",
  );
});

const ignore = !await testsWebgpu();
const suffix = ignore ? " (no adapter)" : "";

Deno.test({
  name: `a program runs on WebGPU as requestDevice() opened it${suffix}`,
  ignore,
  fn: async () => {
    const [low, high, sum] = await train({ gpu: posing(navigator.gpu) });
    // A division and an inverse root of WGSL may be off by 2.5 and 2 units of 2^-24, products by half a one each.
    const tolerance = 8 * 2 ** -23;
    assert(Math.abs(low + 1) <= tolerance && Math.abs(high - 1) <= tolerance, `${low}, ${high}`);
    assert.equal(sum, 4);
  },
});

Deno.test({
  name: `an array of a device that was not chosen is refused${suffix}`,
  ignore,
  fn: async () => {
    await using gpu = await requestDevice({ gpu: posing(navigator.gpu) });
    await using cpu = await wasmDevice();
    const foreign = tensor<DeviceArray>(gpu, [1, 2], [2, 1]);
    const x = { ...foreign, data: cpu.upload(Float32Array.of(1, 2)) };
    const state = initBatchNorm(gpu, 1);
    assert.throws(() => batchNormForward(state, x, { device: gpu }), /another device/);
    assert(gpu.kind === "webgpu" && foreign.data.device === "webgpu");
    assert.equal(unwrap(foreign.data).size, 8, "what is its own goes where its handle's go");
    gpu.free(foreign.data);
    cpu.free(x.data);
  },
});
