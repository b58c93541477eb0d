/** Devices in Node: the reference, Wasm on one thread and on two, WebGPU by Dawn; checkpoints. */

import assert from "node:assert/strict";
import { readSafetensors, toStateDict, writeSafetensors } from "../../lib/checkpoint.ts";
import { requestDevice } from "../../kernels/request_device.ts";
import { view, type WasmArray, wasmDevice, type WasmOptions } from "../../kernels/wasm_device.ts";
import { requestWebGpuDevice, type WebGpuArray } from "../../kernels/webgpu_device.ts";
import { initLayer, isDeviceError, referenceDevice, tensor, toArray } from "../../mod.ts";
import type { DeviceKit, Register } from "../kit.ts";
import { goldenSuite } from "../suites/golden.ts";
import { deviceLaw } from "../suites/law.ts";
import type { Plan } from "./plan.ts";

const HAS_FLOAT16 = typeof Float16Array === "function";

/** Registers the tests. */
export async function deviceTests(register: Register, { everything, dawn }: Plan): Promise<void> {
  const kit = wasmKit(register, { threads: 2 });
  deviceLaw(kit);
  if (everything) goldenSuite(kit);
  if (dawn) {
    const { create }: { readonly create: (options: readonly string[]) => GPU } = await import(dawn);
    const gpu = create([]);
    const kit: DeviceKit<WebGpuArray> = {
      ...{ name: "webgpu (Dawn)", register, cases: 3, ways: 1 },
      open: async () => {
        const device = await requestWebGpuDevice({ gpu });
        return { device, close: async () => await device[Symbol.asyncDispose]() };
      },
      ...{ ulps: 8, nonFinite: false, subnormals: false, arithmetic: "float32" },
    };
    deviceLaw(kit);
  }
  register(
    "float16 is converted on Wasm, and on the reference device a typed refusal where it must be",
    async () => {
      const halves = [1, 0.333251953125, -2048];
      const device = await wasmDevice();
      const onWasm = tensor(device, halves, [3, 1], { dtype: "float16" });
      assert.deepEqual([...await toArray(device, onWasm)], halves);
      const reference = referenceDevice();
      assert.equal(reference.info.float16, HAS_FLOAT16);
      const refused = [
        () => tensor(reference, halves, [3, 1], { dtype: "float16" }),
        () => view(onWasm),
      ];
      for (const call of refused) {
        if (HAS_FLOAT16) call();
        else assert.throws(call, (error) => isDeviceError(error, "unsupported"));
      }
    },
  );
  register("a model goes into a file and comes back", async () => {
    const device = referenceDevice();
    const model = { norm: initLayer(device, "batchNorm1d", 2) };
    const { tensors } = readSafetensors(writeSafetensors(await toStateDict(device, model)));
    assert.equal(tensors.size, 5);
  });
  register("requestDevice() takes Wasm where there is no WebGPU, and says so", async () => {
    const device = await requestDevice();
    assert.deepEqual([device.kind, device.reason], ["wasm", "this runtime has no WebGPU"]);
    await device[Symbol.asyncDispose]();
  });
}

function wasmKit(register: Register, options: WasmOptions): DeviceKit<WasmArray> {
  return {
    ...{ name: `wasm on ${options.threads} threads`, register, cases: 50 },
    open: async () => {
      const device = await wasmDevice(options);
      return { device, close: async () => await device[Symbol.asyncDispose]() };
    },
    ...{ ulps: 4, nonFinite: true, subnormals: true, arithmetic: "float32" },
  };
}
