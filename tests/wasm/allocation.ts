/** Blocks of a Wasm memory: given out, given back, used again, up to the last address. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { batchNormBackward, batchNormForward, DeviceError, initBatchNorm } from "../../mod.ts";
import { release, tensor } from "../../mod.ts";
import { createDevice } from "../../kernels/wasm/device.ts";
import { createMemory, type Memory } from "../../kernels/wasm/memory.ts";
import { createSpans } from "../../kernels/wasm/spans.ts";
import type { WasmArray, WasmDevice } from "../../kernels/wasm_device.ts";
import { normalArray } from "../random.ts";

const PAGE = 65_536;
const LINE = 64;

function open(initial: number, maximum: number) {
  const wasm = new WebAssembly.Memory({ initial, maximum });
  return { wasm, memory: createMemory(wasm) };
}

function outOfMemory(error: unknown): boolean {
  assert(error instanceof DeviceError);
  assert.equal(error.code, "outOfMemory");
  return true;
}

/** Whether this machine lets a Wasm memory grow to all that 32 bits address; pages that nobody touches cost nothing. */
function grantsAll(): boolean {
  try {
    new WebAssembly.Memory({ initial: 1, maximum: PAGE }).grow(PAGE - 1);
    return true;
  } catch {
    return false;
  }
}

/** A device that tells of its blocks. */
async function openWatched() {
  const blocks = new Map<number, number>();
  let inner: Memory | undefined;
  const device = await createDevice({}, {
    build: "simd128",
    around: (memory) => {
      inner = memory;
      return {
        ...memory,
        allocate: (bytes) => {
          const address = memory.allocate(bytes);
          blocks.set(address, bytes);
          return address;
        },
        release: (address, bytes) => {
          assert.equal(blocks.get(address), bytes, "a block is given back as it was given out");
          memory.release(address, bytes);
          blocks.delete(address);
        },
      };
    },
  });
  return { device, blocks, bytes: () => inner!.buffer().byteLength };
}

/** Uploads values to the highest addresses that are given out, without the last ones where there is no room. */
function uploadHighest(device: WasmDevice, values: Float32Array): WasmArray {
  try {
    return device.upload(values);
  } catch (error) {
    outOfMemory(error);
    return device.upload(values.subarray(0, values.length - LINE / 4));
  }
}

/** Registers the tests. */
export function allocationTests(): void {
  Deno.test("wasm: where memory is short the arrays that are alive are counted, and those that were dropped", async () => {
    const program = new URL("./dropped_program.ts", import.meta.url).pathname;
    const args = ["run", "--no-check", "--v8-flags=--expose-gc", program];
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    const [held, dropped] = new TextDecoder().decode(stdout).trim().split("\n");
    assert(dropped, new TextDecoder().decode(stderr));
    const cure = "region\\(device, body, { replace: state }\\), or to release\\(\\)";
    assert.match(
      held,
      new RegExp(`; 3000 arrays are alive: a loop gives its old state to ${cure}$`),
    );
    assert.match(dropped, /; 3000 arrays are alive, of which 2000 or more were dropped/);
  });

  Deno.test("wasm: any order of giving out and back keeps blocks apart, aligned and as they were", () => {
    const command = fc.record({ release: fc.boolean(), which: fc.nat(50), bytes: fc.nat(9000) });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
        const { memory, wasm } = open(1, 64);
        const live: { address: number; bytes: number; mark: number }[] = [];
        commands.forEach(({ release, which, bytes }, i) => {
          if (release && live.length > 0) {
            const [{ address, bytes }] = live.splice(which % live.length, 1);
            memory.release(address, bytes);
          } else {
            const address = memory.allocate(bytes);
            assert(address > 0 && address % 64 === 0, `a block at ${address}`);
            new Uint8Array(memory.buffer(), address, bytes).fill(i % 251 + 1);
            live.push({ address, bytes, mark: i % 251 + 1 });
          }
        });
        const all = new Uint8Array(wasm.buffer);
        for (const { address, bytes, mark } of live) {
          const wrong = all.subarray(address, address + bytes).findIndex((byte) => byte !== mark);
          assert.equal(wrong, -1, "a block was given out twice, or lost what it held");
        }
        // What was given back is there again, for one block of all that the memory holds.
        for (const { address, bytes } of live) memory.release(address, bytes);
        const before = wasm.buffer.byteLength;
        assert.equal(memory.allocate(before - 64), 64);
        assert.equal(wasm.buffer.byteLength, before);
      }),
      { numRuns: 60, seed: 8 },
    );
  });

  Deno.test("wasm: a block that was given back serves the next of its size, and neighbours join", () => {
    const { memory, wasm } = open(32, 32);
    const unit = 2 * PAGE;
    const blocks = [1, 2, 3, 4].map((units) => memory.allocate(units * unit));
    const giveBack = (i: number) => memory.release(blocks[i], (i + 1) * unit);
    giveBack(1);
    assert.equal(memory.allocate(2 * unit), blocks[1]);
    // Between large blocks may lie less than a page of idle lines, which join what is idle beside them.
    const behind = blocks[1] + 2 * unit;
    assert(blocks[2] - behind < 4096);
    // Of two gaps that suffice the lower one is split.
    giveBack(0);
    giveBack(2);
    assert.equal(memory.allocate(unit / 2), blocks[0]);
    assert.equal(memory.allocate(2 * unit), behind);
    assert.equal(memory.allocate(unit / 2), blocks[0] + unit / 2);
    assert.equal(memory.allocate(unit), behind + 2 * unit);
    // Beside the end everything is one.
    giveBack(3);
    assert(Math.abs(memory.allocate(9 * unit) - blocks[3]) < 2 * 4096);
    assert.equal(wasm.buffer.byteLength, 32 * PAGE);
    assert.throws(() => memory.allocate(unit), outOfMemory);
  });

  Deno.test("wasm: a loop finds a small block of each size again, whatever was asked for in between", () => {
    const { memory, wasm } = open(64, 128);
    const sizes = [1032, 256, 5 * PAGE, 1032, 512, 256, 3 * PAGE, 8 * PAGE, 40, PAGE - 64];
    // Each is given back before the next but one is asked for, so that the idle ones would often suffice if joined.
    const round = () => {
      const found: number[] = [];
      sizes.forEach((bytes, i) => {
        found.push(memory.allocate(bytes));
        if (i > 0) memory.release(found[i - 1], sizes[i - 1]);
      });
      memory.release(found.at(-1)!, sizes.at(-1)!);
      return found.filter((_, i) => sizes[i] < PAGE);
    };
    round();
    const settled = round();
    // Beside others that ask for another size too.
    memory.release(memory.allocate(2048), 2048);
    assert.deepEqual(round(), settled);
    assert.equal(new Set(settled).size, new Set(sizes.filter((bytes) => bytes < PAGE)).size);
    // Rather than that the memory grows, they serve a block of any size.
    assert.equal(memory.allocate(64 * PAGE - 64), 64);
    assert.equal(wasm.buffer.byteLength, 64 * PAGE);
  });

  Deno.test("wasm: the time of blocks of ever new sizes does not grow with the square of their number", () => {
    const timeOf = (count: number): number => {
      const { memory } = open(1, 65_536);
      // Idle spans of one line that nothing joins, and blocks that none of them serves.
      const lines = Array.from({ length: 2 * count }, () => memory.allocate(64));
      lines.forEach((address, i) => i % 2 && memory.release(address, 64));
      const start = performance.now();
      for (let i = 0; i < count; i++) {
        const bytes = 128 + 64 * i;
        memory.release(memory.allocate(bytes), bytes);
      }
      return performance.now() - start;
    };
    // The least of several in turns, as other programs of the machine hold up some of them.
    timeOf(2000);
    let [few, many] = [Infinity, Infinity];
    for (let round = 0; round < 8 && !(round > 2 && many < 45 * few); round++) {
      few = Math.min(few, timeOf(2000));
      many = Math.min(many, timeOf(16_000));
    }
    // 8 times as many take 10 to 20 times the time, as caches have it; a list that is searched takes 64 and more.
    assert(many < 45 * few, `${many.toFixed(1)} ms for 16,000, ${few.toFixed(1)} ms for 2,000`);
  });

  Deno.test("wasm: spans are as a plain list of them would be, in any order of adding and taking", () => {
    const command = fc.tuple(
      fc.boolean(),
      fc.integer({ min: 0, max: 2999 }),
      fc.integer({ min: 1, max: 4 }),
    );
    fc.assert(
      fc.property(fc.array(command, { minLength: 900, maxLength: 1500 }), (commands) => {
        const spans = createSpans();
        const idle = new Uint8Array(3000 + 1); // 1 where idle: a map of the memory.
        const runs = () =>
          [...idle.join("").matchAll(/1+/g)].map(({ index, 0: run }) => [index, run.length]);
        for (const [add, at, length] of commands) {
          if (add) {
            if (idle.subarray(at, at + length).some((bit) => bit) || at + length > 3000) continue;
            idle.fill(1, at, at + length);
            spans.add(at, length);
          } else if (at % 9 === 0) {
            const wanted = runs().find(([, bytes]) => bytes >= length);
            assert.equal(spans.take(length), wanted?.[0]);
            if (wanted) idle.fill(0, wanted[0], wanted[0] + length);
          }
        }
        const last = runs().at(-1);
        if (last) assert.equal(spans.takeBefore(last[0] + last[1]), last[0]);
        for (const [address, bytes] of runs().slice(0, -1)) {
          assert.equal(spans.take(bytes) !== undefined, true, `${address}`);
        }
      }),
      { numRuns: 25, seed: 3 },
    );
  });

  Deno.test("wasm: large blocks begin at different lines of a page, where the memory has room for that", () => {
    const { memory, wasm } = open(4, 200);
    const lines = Array.from({ length: 64 }, () => memory.allocate(2 * PAGE) % 4096);
    assert.equal(new Set(lines).size, 64);
    // The lines between them are not lost: before the memory grows, small blocks get them.
    const before = wasm.buffer.byteLength;
    let small: number;
    do small = memory.allocate(64); while (small > lines.length * PAGE);
    assert.equal(wasm.buffer.byteLength, before);
    const full = open(5, 5).memory;
    assert.equal(full.allocate(2 * PAGE), 64);
    assert.equal(full.allocate(3 * PAGE - 64), 64 + 2 * PAGE, "no line to spare");
  });

  Deno.test("wasm: a memory grows by an eighth, near its maximum by what is needed, and no further", () => {
    const { memory, wasm } = open(80, 100);
    memory.allocate(80 * PAGE - 64);
    memory.allocate(64);
    assert.equal(wasm.buffer.byteLength, 90 * PAGE);
    memory.allocate(9 * PAGE); // To 89 pages and one line: an eighth is not needed.
    assert.equal(wasm.buffer.byteLength, 90 * PAGE);
    memory.allocate(2 * PAGE);
    assert.equal(wasm.buffer.byteLength, 92 * PAGE, "an eighth would be past the maximum");
    for (const bytes of [9 * PAGE, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 50, 2 ** 53]) {
      assert.throws(() => memory.allocate(bytes), outOfMemory, `${bytes} bytes`);
    }
    assert.equal(wasm.buffer.byteLength, 92 * PAGE);
    memory.allocate(PAGE / 2);
  });

  Deno.test("wasm: scratch memory that an operation outgrows is given back", async () => {
    const { device, blocks } = await openWatched();
    // More channels, more records: each of these needs more scratch memory than the one before.
    for (const channels of [4, 400, 4000]) {
      const x = tensor(device, normalArray(2 * channels, channels), [2, channels]);
      device.free(device.moments({ input: x }), x.data);
      assert.equal(blocks.size, 1, `blocks left after ${channels} channels`);
    }
    device[Symbol.dispose]();
  });

  Deno.test("wasm: 10,000 training steps need no more memory than ten", async () => {
    const { device, blocks, bytes } = await openWatched();
    const state = initBatchNorm(device, 3);
    const [x, dy] = [1, 2].map((seed) => tensor(device, normalArray(60, seed), [4, 3, 5]));
    const step = () => {
      const forward = batchNormForward(state, x, { device });
      const back = batchNormBackward(forward.saved, dy, { device });
      release(device, [forward, back], { keep: [state, x] });
    };
    for (let i = 0; i < 10; i++) step();
    const [before, held] = [bytes(), [...blocks]];
    for (let i = 0; i < 10_000; i++) step();
    assert.equal(bytes(), before);
    assert.deepEqual([...blocks].sort(), held.sort(), "the same blocks are in use");
    device[Symbol.dispose]();
  });

  Deno.test({
    name: "wasm: arrays above 2 GiB and up to the last address give the same bits",
    // Untouched pages cost nothing, but some machines do not even grant addresses.
    ignore: !grantsAll(),
    fn: async () => {
      const { device, blocks } = await openWatched();
      const shape = [16, 4, 16];
      const values = [normalArray(1024, 1, 1e3), normalArray(1024, 2)];
      const state = initBatchNorm(device, 4);
      const bits = async (dtype: "float32" | "float16", least: number) => {
        const [x, dy] = values.map((values) => tensor(device, values, shape, { dtype }));
        const { saved, output } = batchNormForward(state, x, { device }, {
          activation: "relu",
        });
        const back = batchNormBackward(saved, dy, { device });
        const first = { ...x, shape: [64, 16] };
        const columns = batchNormForward(initBatchNorm(device, 16), first, { device }).output;
        const arrays = [
          output.data,
          back.gradInput.data,
          columns.data,
          device.addScaled({ x: x.data, y: x.data, scale: 0 }),
        ];
        const addresses = [...blocks.keys()].slice(-4);
        assert(addresses.every((address) => address >= least), `blocks at ${addresses}`);
        return await device.downloadAll!(arrays);
      };
      const low = [await bits("float32", 0), await bits("float16", 0)];
      const end = () =>
        Math.max(...[...blocks].map(([at, size]) => at + Math.ceil(size / 64) * 64));
      device.allocate(2 ** 29, "float32");
      assert(end() > 2 ** 31);
      // Lines below it that it did not need are taken first.
      do device.allocate(16, "float32"); while ([...blocks.keys()].at(-1)! < 2 ** 31);
      assert.deepEqual([await bits("float32", 2 ** 31), await bits("float16", 2 ** 31)], low);
      // All but 8 KiB, then two arrays of 4 KiB. Where the last one ended, the address behind it would be 2^32, which is 0.
      const momentsOf = (data: WasmArray) => {
        const shape = [1, 1, device.describe(data).length];
        const row = { data, shape, dtype: "float32", format: "channelsFirst" } as const;
        return device.toWire(device.moments({ input: row }));
      };
      const spare = [values[1], values[1].subarray(0, 1024 - LINE / 4)].map((v) =>
        device.upload(v)
      );
      const expected = await Promise.all(spare.map(momentsOf));
      const left = 2 ** 32 - 8192 - end();
      const half = Math.floor(left / 128) * 64;
      for (const bytes of [half, left - half - 2 * PAGE]) device.allocate(bytes / 4, "float32");
      for (let rest; (rest = 2 ** 32 - 8192 - end()) > 0;) {
        device.allocate(Math.min(rest, PAGE / 2) / 4, "float32");
      }
      device.upload(values[0]);
      assert.equal(end(), 2 ** 32 - 4096);
      const highest = uploadHighest(device, values[1]);
      assert(end() >= 2 ** 32 - LINE);
      device.free(...spare); // Makes room for moments.
      const { length } = device.describe(highest);
      assert.deepEqual(await momentsOf(highest), expected[length === 1024 ? 0 : 1]);
      assert.throws(() => device.allocate(2 ** 30, "float32"), outOfMemory);
      device[Symbol.dispose]();
    },
  });
}
