/** A memory that says no: at any request of any operation nothing is lost, nothing leaks, and afterwards it goes on. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  DeviceError,
  initBatchNorm,
  region,
  tensor,
  toArray,
} from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { emptyTensor, view, type WasmArray, type WasmDevice } from "../../kernels/wasm_device.ts";
import { normalArray } from "../random.ts";
import { openWasm } from "../wasm_kit.ts";

function outOfMemory(error: unknown): boolean {
  assert(error instanceof DeviceError);
  assert.equal(error.code, "outOfMemory");
  return true;
}

/** A device whose memory refuses the request that `refuse` counts down to. */
async function openScarce() {
  let countdown = Infinity;
  const opened = await openWasm({
    build: "simd128",
    beneath: (memory) => ({
      ...memory,
      allocate: (bytes) => {
        if (--countdown === 0) throw new DeviceError("Cannot allocate: told so", "outOfMemory");
        return memory.allocate(bytes);
      },
    }),
  });
  return { ...opened, refuse: (at: number) => countdown = at };
}

/** Every operation that allocates, as a function of a device with inputs on it; frees nothing. */
function operationsOn(device: WasmDevice): Readonly<Record<string, () => readonly WasmArray[]>> {
  const shape = [9, 5, 7];
  const other = { format: "channelsLast", dtype: "float16" } as const;
  const put = (seed: number, format: "channelsFirst" | "channelsLast") =>
    tensor(device, normalArray(315, seed), shape, { ...other, format });
  const [x, dy, residual] = [
    put(1, "channelsFirst"),
    put(2, "channelsLast"),
    put(3, "channelsLast"),
  ];
  const state = initBatchNorm(device, 5);
  const { weight, bias, eps } = state;
  const moments = device.moments({ input: x });
  const statistics = { source: "batch", moments } as const;
  const affine = { weight, bias, eps };
  const y = { ...x, data: device.normalize({ input: x, statistics, affine }) };
  const sums = device.gradientSums({ input: x, gradOutput: dy, statistics });
  const running = { runningMean: state.runningMean!, runningVar: state.runningVar! };
  const back = { input: x, gradOutput: dy, statistics, output: rectifiedBy("relu", y) };
  const gradients = {
    ...{ ...back, affine, sums: { local: sums, total: sums } },
    residualFormat: "channelsLast",
  } as const;
  const weights = tensor(device, normalArray(9, 4).map(Math.abs), [9, 1]);
  const present = (arrays: readonly (WasmArray | null)[]) =>
    arrays.filter((array) => array !== null);
  return {
    upload: () => [device.upload(normalArray(20, 1))],
    "upload of float16": () => [device.upload(normalArray(20, 1), "float16")],
    allocate: () => [device.allocate(20, "float16")],
    moments: () => [device.moments({ input: x })],
    "moments by weights": () => [device.moments({ input: x, weights })],
    momentsFromWire: () => [device.fromWire(momentsWire, new Float64Array(11))],
    sumsFromWire: () => [device.fromWire(sumsWire, new Float64Array(10))],
    normalize:
      () => [device.normalize({ input: x, statistics, affine, residual, activation: "relu" })],
    updateRunningStats: () =>
      Object.values(device.updateRunningStats({ running, moments, factor: 0.1 })),
    gradientSums: () => [device.gradientSums(back)],
    gradients: () => present(Object.values(device.gradients(gradients))),
    "gradients by weights": () =>
      present(Object.values(device.gradients({ ...gradients, weights }))),
    addScaled: () => [device.addScaled({ x: x.data, y: dy.data, scale: 2 })],
    "merge of moments": () => [device.merge(moments, moments)],
    "merge of sums": () => [device.merge(sums, sums)],
    batchNormForward: () => {
      const { output, saved, state: next } = batchNormForward(state, x, { device }, {
        activation: "relu",
        residual,
      });
      return [output.data, saved.moments.data, next.runningMean!, next.runningVar!];
    },
    batchNormInfer: () => [batchNormInfer(state, x, { device }, { residual }).data],
  };
}

/** Registers the tests. */
export function exhaustionTests(): void {
  Deno.test("wasm: an operation that is refused memory at any request leaves all as it was", async () => {
    const { device, guarded, close, refuse } = await openScarce();
    const operations = operationsOn(device);
    for (const [name, run] of Object.entries(operations)) {
      const first = run(); // Scratch memory is as large as it must be from now on.
      const expected = await contents(device, first);
      device.free(...first);
      const before = guarded.inUse();
      let refused = 0;
      for (let at = 1;; at++) {
        refuse(at);
        try {
          const results = run();
          refuse(Infinity);
          assert.deepEqual(await contents(device, results), expected, name);
          device.free(...results);
          break;
        } catch (error) {
          refuse(Infinity);
          outOfMemory(error);
          refused++;
        }
        assert.equal(guarded.inUse(), before, `${name}: bytes in use after refusal ${at}`);
        guarded.check();
      }
      assert(refused >= expected.length, `${name}: every result asks for memory`);
    }
    await close();
  });

  Deno.test("wasm: what was scratch memory is not, once more of it was refused", async () => {
    const { device, close, refuse } = await openScarce();
    // Tensors that are written and read in place, since to convert float16 takes much scratch memory.
    const [few, many] = [[4, 3], [40, 1030]].map((shape) =>
      emptyTensor(device, shape, { dtype: "float16" })
    );
    for (const { data } of [few, many]) view(data).fill(1.5);
    const rectify = () =>
      assert.deepEqual(
        [...view(device.addScaled({ x: few.data, y: few.data, scale: 0 }))],
        new Array<number>(12).fill(1.5),
      );
    rectify();
    refuse(1);
    assert.throws(() => device.moments({ input: many }), outOfMemory);
    refuse(Infinity);
    // Whoever comes next gets the old scratch memory, whatever size it had.
    const taken = Array.from(
      { length: 20 },
      (_, i) => device.upload(new Float32Array(4096).fill(i)),
    );
    rectify();
    for (const [i, array] of taken.entries()) {
      assert((await device.download(array)).every((value) => value === i), `array ${i}`);
    }
    const wire = await device.toWire(device.moments({ input: many }));
    assert.deepEqual([...wire.subarray(0, 2), wire.at(-1)], [40, 1.5, 0]);
    await close();
  });

  Deno.test("wasm: a call of the library that is refused memory leaves the caller's arrays alone", async () => {
    const { device, guarded, close, refuse } = await openScarce();
    const state = initBatchNorm(device, 5);
    const put = (seed: number) => tensor(device, normalArray(315, seed), [9, 5, 7]);
    const [x, dy] = [put(1), put(2)];
    const train = (give: boolean) =>
      region(device, (d) => {
        const forward = batchNormForward(state, x, { device: d }, { activation: "relu" });
        const given = give
          ? dy
          : { ...dy, data: d.addScaled({ x: dy.data, y: dy.data, scale: 0 }) };
        const evaluated = batchNormInferBackward(state, x, given, { device: d });
        const back = batchNormBackward(forward.saved, given, { device: d }, { donate: give });
        return { output: forward.output, gradInput: back.gradInput, evaluated };
      });
    const before = await Promise.all([x, dy].map((t) => toArray(device, t)));
    const warm = train(false);
    device.free(warm.output.data, warm.gradInput.data);
    device.free(
      ...Object.values(warm.evaluated).map((v) => v && "data" in v ? v.data : v)
        .filter((array): array is WasmArray => device.owns(array)),
    );
    const blocks = guarded.blocks();
    let refusals = 0;
    for (let at = 1;; at++) {
      refuse(at);
      const done = attempt(() => train(true));
      refuse(Infinity);
      if (done) break;
      refusals++;
      assert.equal(guarded.blocks(), blocks, `blocks after refusal ${at}`);
      assert(device.owns(dy.data), "what a failed call was given stays the caller's");
      const after = await Promise.all([x, dy].map((t) => toArray(device, t)));
      assert.deepEqual(after, before);
    }
    assert(refusals > 8);
    await close();
  });

  Deno.test("wasm: a device of 2 MiB is full, keeps what it has, and goes on once arrays are freed", async () => {
    const options = { initialBytes: 2 ** 16, maximumBytes: 2 ** 21 };
    const { device, guarded, close } = await openWasm({ options });
    const arrays: WasmArray[] = [];
    const fill = () => {
      for (let i = 0;; i++) {
        arrays.push(device.upload(new Float32Array(10_000).fill(arrays.length)));
      }
    };
    assert.throws(fill, outOfMemory);
    assert(arrays.length > 45, "all but a few of 52");
    const used = guarded.inUse();
    assert.throws(fill, outOfMemory);
    assert.throws(() => device.addScaled({ x: arrays[0], y: arrays[0], scale: 0 }), outOfMemory);
    assert.equal(guarded.inUse(), used);
    for (const [i, array] of arrays.entries()) {
      assert((await device.download(array)).every((value) => value === i), `array ${i}`);
    }
    // Two neighbours make room for one larger array.
    device.free(...arrays.splice(10, 2));
    const large = device.upload(new Float32Array(20_000).fill(7));
    assert((await device.download(large)).every((value) => value === 7));
    assert.throws(fill, outOfMemory);
    device.free(large, ...arrays.splice(0));
    assert.throws(fill, outOfMemory);
    assert(arrays.length > 45);
    await close();
  });
}

/** The result of a body, or null where memory was refused. */
function attempt<R>(body: () => R): R | null {
  try {
    return body();
  } catch (error) {
    outOfMemory(error);
    return null;
  }
}

/** What arrays hold, of whatever kind. */
async function contents(
  device: WasmDevice,
  arrays: readonly WasmArray[],
): Promise<readonly (Float32Array | Float64Array)[]> {
  return await Promise.all(
    arrays.map((array) =>
      device.download(array)
        .catch(() => device.toWire(array))
        .catch(() => device.toWire(array))
    ),
  );
}
