/** Whether the guarded memory of the tests catches what it is there for: kernels that reach beyond their blocks. */

import assert from "node:assert/strict";
import {
  addScaled,
  batchNormForward,
  type DType,
  initBatchNorm,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { emptyTensor, view, type WasmArray } from "../../kernels/wasm_device.ts";
import { createMemory, type Memory } from "../../kernels/wasm/memory.ts";
import { normalArray } from "../random.ts";
import { guard, openWasm } from "../wasm_kit.ts";

const openMemory = () => guard(createMemory(new WebAssembly.Memory({ initial: 1, maximum: 16 })));

/** A copy such as kernels make, which goes on for some elements too many, or begins too early. */
function copyWrongly(
  memory: Memory,
  [from, to]: readonly [number, number],
  length: number,
  { before = 0, after = 0 },
): void {
  const all = new Float32Array(memory.buffer());
  for (let i = -before; i < length + after; i++) all[to / 4 + i] = all[from / 4 + i];
}

/** Registers the tests. */
export function guardTests(): void {
  Deno.test("wasm: a guard zone tells of one element too many, at either end, and whose", () => {
    for (const [before, after] of [[0, 0], [0, 1], [1, 0], [0, 64], [64, 0]]) {
      const { memory, guarded } = openMemory();
      const [from, to] = [memory.allocate(40), memory.allocate(40)];
      new Float32Array(memory.buffer(), from, 10).fill(7);
      copyWrongly(memory, [from, to], 10, {});
      guarded.check();
      // What is copied is the other block's guard zone, so another number must stand there to be seen.
      new Float32Array(memory.buffer(), from - 4 * before, 10 + before + after).fill(7);
      copyWrongly(memory, [from, to], 10, { before, after });
      if (before + after === 0) guarded.check();
      else assert.throws(() => memory.release(to, 40), /block of 40 was written/);
    }
  });

  Deno.test("wasm: a guard zone spoils sums of what lies beyond a block, and poison of what nobody wrote", () => {
    const { memory, guarded } = openMemory();
    const block = memory.allocate(40);
    const sumOf = (address: number, length: number) =>
      new Float32Array(memory.buffer(), address, length).reduce((a, b) => a + b);
    assert(Number.isNaN(sumOf(block, 10)), "new memory is full of NaN");
    new Float32Array(memory.buffer(), block, 10).fill(1);
    assert.equal(sumOf(block, 10), 10);
    assert(Math.abs(sumOf(block, 11)) > 1e37);
    assert(Math.abs(sumOf(block - 4, 11)) > 1e37);
    const halves = new Float16Array(memory.buffer(), block, 21);
    halves.fill(1);
    new Uint8Array(memory.buffer(), block + 40, 2).fill(0xfe);
    assert(Number.isNaN(halves[20]), "as float16 a guard zone is NaN");
    memory.release(block, 40);
    assert(Number.isNaN(sumOf(block, 10)), "what was given back is full of NaN");
    assert.deepEqual([guarded.blocks(), guarded.inUse()], [0, 0]);
  });

  Deno.test("wasm: a guarded memory tells of a block that is given back twice, or as one of another size", () => {
    const { memory } = openMemory();
    const [block, other] = [memory.allocate(40), memory.allocate(40)];
    assert.throws(
      () => memory.release(block, 44),
      /block of 40 at \d+ was given back as one of 44/,
    );
    memory.release(block, 40);
    assert.throws(() => memory.release(block, 40), /block of undefined at/);
    memory.release(other, 40);
  });

  Deno.test("wasm: a device on guarded memory whose blocks are too short is found out", async () => {
    // One element less than the device asks for: the last write of every whole block is one too many.
    const shorten = (memory: Memory): Memory => ({
      ...memory,
      allocate: (bytes) => memory.allocate(Math.max(0, bytes - 4)),
      release: (address, bytes) => memory.release(address, Math.max(0, bytes - 4)),
    });
    const { device, guarded, close } = await openWasm({ beyond: shorten });
    const x = device.upload(Float32Array.of(1, 2, 3));
    assert.throws(guarded.check, /byte 8 of a block of 8 was written/);
    assert.throws(() => device.free(x), /was written/);
    await assert.rejects(close(), /was written/);
  });

  Deno.test("wasm: elements that nobody wrote spoil what is made of them", async () => {
    const { device, close } = await openWasm({});
    const [x, y] = [device.allocate(9, "float32"), device.upload(new Float32Array(9))];
    const sum = await device.download(addScaled(device, y, x, 1));
    assert(sum.every(Number.isNaN));
    const state = initBatchNorm(device, 1);
    const input = tensor(device, normalArray(9, 1), [9, 1]);
    const spoilt = { ...input, data: x };
    const outputs = [input, spoilt].map((t) => batchNormForward(state, t, { device }).output);
    assert((await toArray(device, outputs[0])).every(Number.isFinite));
    assert((await toArray(device, outputs[1])).every(Number.isNaN));
    await close();
  });

  Deno.test("wasm: scratch memory is as large as each operation's kernels take it", async () => {
    // Runs and rows of more than 4096 elements, in both layouts; a device of its own for each, on which nothing else has
    // made the scratch memory larger than it must be.
    const shapes = [[2, 3, 4100], [40, 1030], [3, 4099]];
    for (const name of Object.keys((await startOn(shapes[0], "float32")).operations)) {
      for (const dtype of ["float32", "float16"] as const) {
        for (const shape of shapes) {
          const { operations, close } = await startOn(shape, dtype);
          operations[name]();
          await close();
        }
      }
    }
  });
}

/** Operations on a fresh device, whose tensors are written in place, since an upload may need scratch memory too. */
async function startOn(shape: readonly number[], dtype: DType) {
  const { device, close } = await openWasm({ build: "simd128" });
  const length = shape.reduce((product, extent) => product * extent, 1);
  const put = (seed: number): Tensor<WasmArray> => {
    const made = emptyTensor(device, shape, { dtype });
    view(made).set(normalArray(length, seed));
    return made;
  };
  const [input, gradOutput, output, residual] = [1, 2, 3, 4].map(put);
  const channels = shape[1];
  const wire = new Float64Array(1 + 2 * channels).fill(1);
  wire[0] = length / channels;
  const statistics = { source: "batch", moments: device.fromWire(momentsWire, wire) } as const;
  const sums = device.fromWire(sumsWire, wire.subarray(1));
  const vector = device.upload(new Float32Array(channels).fill(1));
  const affine = { weight: vector, bias: vector, eps: 1e-5 };
  const back = { input, gradOutput, statistics, output: rectifiedBy("relu", output) };
  const both = { local: sums, total: sums };
  const [batch, , ...spatial] = shape;
  const [weights, perSample] = [[batch, 1, ...spatial], [batch, 1]].map((shape) => {
    const made = emptyTensor(device, shape, { dtype });
    view(made).fill(1);
    return made;
  });
  const operations: Readonly<Record<string, () => unknown>> = {
    moments: () => device.moments({ input }),
    "moments by weights": () => device.moments({ input, weights }),
    "moments by weights of samples": () => device.moments({ input, weights: perSample }),
    normalize: () => device.normalize({ input, statistics, affine, residual, activation: "relu" }),
    gradientSums: () => device.gradientSums(back),
    gradients: () =>
      device.gradients({ ...back, affine, sums: both, residualFormat: "channelsFirst" }),
    "gradients by weights": () => device.gradients({ ...back, affine, sums: both, weights }),
    "gradients by weights of samples": () =>
      device.gradients({ ...back, affine, sums: both, weights: perSample }),
    addScaled: () => device.addScaled({ x: input.data, y: residual.data, scale: 2 }),
    download: () => device.download(input.data),
  };
  return { operations, close };
}
