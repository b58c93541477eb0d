import { PACKED } from "../kernels/wasm/binaries.ts";
import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);
const text = new TextDecoder();
/** How the compiled kernels begin, in base64. */
const WASM = PACKED.slice(1, 80);

async function versionOfNode(): Promise<string | null> {
  try {
    const { stdout } = await new Deno.Command("node", { args: ["--version"] }).output();
    return text.decode(stdout).trim();
  } catch {
    return null;
  }
}

Deno.test({
  name: "a browser bundle of the library is plain JavaScript that runs outside Deno",
  ignore: await versionOfNode() === null,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const bundle = await new Deno.Command(Deno.execPath(), {
        args: ["bundle", "--quiet", "--platform=browser", "-o", `${folder}/syncbn.mjs`, "mod.ts"],
        cwd: root,
      }).output();
      assert(bundle.success, text.decode(bundle.stderr));
      const source = await Deno.readTextFile(`${folder}/syncbn.mjs`);
      assert.doesNotMatch(source, /\b(Deno|navigator|process|require)\b/);
      assert(!source.includes(WASM), "kernels come with their entry points alone");
      await Deno.writeTextFile(
        `${folder}/main.mjs`,
        `import * as bn from "./syncbn.mjs";
         const device = bn.referenceDevice();
         const state = bn.initBatchNorm(device, 1, { eps: 0 });
         const parts = [[1], [], [3]];
         const ranks = await bn.runRanks(3, async (group) => {
           const part = parts[group.rank];
           const x = bn.tensor(device, part, [part.length, 1]);
           const forward = await bn.syncBatchNormForward(state, x, { device, group });
           const { gradInput } = await bn.syncBatchNormBackward(forward.saved, x, { device, group });
           return [...await bn.toArray(device, forward.output), ...await bn.toArray(device, gradInput)];
         });
         console.log(JSON.stringify(ranks));`,
      );
      const node = await new Deno.Command("node", { args: ["main.mjs"], cwd: folder }).output();
      assert(node.success, text.decode(node.stderr));
      assert.deepEqual(JSON.parse(text.decode(node.stdout)), [[-1, 0], [], [1, 0]]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "a bundle with the WebGPU device runs where there is no WebGPU, and says so",
  ignore: await versionOfNode() === null,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(
        `${folder}/app.ts`,
        `import { DeviceError, referenceDevice } from "${new URL("mod.ts", root)}";
         import { requestWebGpuDevice, wrap } from "${new URL("kernels/webgpu_device.ts", root)}";
         const said: string[] = [];
         const gpu = {} as unknown as GPU;
         await requestWebGpuDevice({ gpu }).catch((error) => {
           if (error instanceof DeviceError) said.push(error.code);
         });
         try {
           wrap(referenceDevice() as never, { buffer: {} as GPUBuffer }, [1, 1]);
         } catch (error) {
           if (error instanceof TypeError) said.push(error.message);
         }
         console.log(said.join("; "));`,
      );
      const bundle = await new Deno.Command(Deno.execPath(), {
        args: ["bundle", "--quiet", "--platform=browser", "-o", `${folder}/app.mjs`, "app.ts"],
        cwd: folder,
      }).output();
      assert(bundle.success, text.decode(bundle.stderr));
      const node = await new Deno.Command("node", { args: ["app.mjs"], cwd: folder }).output();
      assert(node.success, text.decode(node.stderr));
      assert.match(text.decode(node.stdout), /^unsupported; Cannot wrap the memory as the device/);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "a bundle with checkpoints takes a model to a file and back outside Deno",
  ignore: await versionOfNode() === null,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(
        `${folder}/app.ts`,
        `import { initLayer, referenceDevice } from "${new URL("mod.ts", root)}";
         import * as checkpoint from "${new URL("lib/checkpoint.ts", root)}";
         const device = referenceDevice();
         const model = { norm: initLayer(device, "batchNorm1d", 2) };
         const bytes = checkpoint.writeSafetensors(await checkpoint.toStateDict(device, model));
         const { tensors } = checkpoint.readSafetensors(bytes);
         checkpoint.fromStateDict(device, model, tensors);
         try {
           checkpoint.readSafetensors(bytes.subarray(1));
         } catch (error) {
           console.log(error instanceof checkpoint.SafetensorsError, [...tensors.keys()].join());
         }`,
      );
      const bundle = await new Deno.Command(Deno.execPath(), {
        args: ["bundle", "--quiet", "--platform=browser", "-o", `${folder}/app.mjs`, "app.ts"],
        cwd: folder,
      }).output();
      assert(bundle.success, text.decode(bundle.stderr));
      const source = await Deno.readTextFile(`${folder}/app.mjs`);
      assert.doesNotMatch(source, /\b(Deno\.|navigator|process\.|require)\b/);
      const node = await new Deno.Command("node", { args: ["app.mjs"], cwd: folder }).output();
      assert(node.success, text.decode(node.stderr));
      assert.equal(
        text.decode(node.stdout).trim(),
        "true norm.num_batches_tracked,norm.bias,norm.running_mean,norm.running_var,norm.weight",
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "a bundle with the Wasm device computes outside Deno, on one thread and on two",
  ignore: await versionOfNode() === null,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(
        `${folder}/app.ts`,
        `import { batchNormForward, initBatchNorm, tensor } from "${new URL("mod.ts", root)}";
         import { requestDevice } from "${new URL("kernels/request_device.ts", root)}";
         import { view, wasmDevice } from "${new URL("kernels/wasm_device.ts", root)}";
         // Two parts that are worth a thread each; their mean is 0.5 and their deviation too.
         const values = Float32Array.from({ length: 2 ** 18 }, (_, i) => i % 2);
         const shown: unknown[] = [];
         for (const threads of [1, 2]) {
           const device = await wasmDevice({ threads });
           const x = tensor(device, values, [1, 1, values.length]);
           const state = initBatchNorm(device, 1, { eps: 0 });
           const y = view(batchNormForward(state, x, { device }).output);
           shown.push([device.info.threads, y[0], y[1], y[y.length - 2], y[y.length - 1]]);
           await device[Symbol.asyncDispose]();
         }
         const device = await requestDevice();
         console.log(JSON.stringify([...shown, device.kind, device.reason]));
         await device[Symbol.asyncDispose]();`,
      );
      const bundle = await new Deno.Command(Deno.execPath(), {
        args: ["bundle", "--quiet", "--platform=browser", "-o", `${folder}/app.mjs`, "app.ts"],
        cwd: folder,
      }).output();
      assert(bundle.success, text.decode(bundle.stderr));
      const source = await Deno.readTextFile(`${folder}/app.mjs`);
      assert(source.includes(WASM));
      const node = await new Deno.Command("node", { args: ["app.mjs"], cwd: folder }).output();
      assert(node.success, text.decode(node.stderr));
      assert.deepEqual(JSON.parse(text.decode(node.stdout)), [
        [1, -1, 1, -1, 1],
        [2, -1, 1, -1, 1],
        "wasm",
        "this runtime has no WebGPU",
      ]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
