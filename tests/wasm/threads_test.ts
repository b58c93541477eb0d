/** Threads that run kernels together: what they compute, and how they fail. */

import assert from "node:assert/strict";
import { DeviceError } from "../../mod.ts";
import { type StartThread, startThread, startWebThread } from "../../kernels/wasm/threads/start.ts";
import { createTeam, whyOneThread } from "../../kernels/wasm/threads/team.ts";
import { mayBlock, sharesMemory } from "../../lib/threads.ts";
import { openWorkshop } from "./threads_kit.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/** A helper that says it is ready and then is dead: nobody ever hears of it again. */
const dead: StartThread = ({ greeted }) => ({
  post: () => greeted({ kind: "ready" }),
  rest: () => {},
  end: () => {},
});
/** Far above any deadline of these tests, so that a busy machine does not matter, and below "for ever". */
const BOUND_MS = 10_000;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

function lost(pattern: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof DeviceError);
    assert.equal(error.code, "lost");
    assert.match(error.message, pattern);
    return true;
  };
}

function thrownBy(body: () => void): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  assert.fail("it threw nothing");
}

for (const [platform, start] of Object.entries({ node: startThread, web: startWebThread })) {
  Deno.test(`a team's threads run a kernel, each with its own arguments (${platform})`, async () => {
    const { team, numbers, words } = await openWorkshop({ threads: 4, start });
    team.run("add", [[0, 0.1], [256, -2e300], [512, 3], [768, NaN]]);
    assert.deepEqual([0, 32, 64, 96].map((i) => numbers[i]), [0.1, -2e300, 3, NaN]);
    team.run("add", [[0, 0.2], [512, 4]]);
    assert.deepEqual([0, 32, 64].map((i) => numbers[i]), [0.1 + 0.2, -2e300, 7]);
    // Unsigned and signed words travel alike.
    team.run("put", [[1024, 2 ** 32 - 1], [1280, -7], [1536, 2 ** 31]]);
    assert.deepEqual([256, 320, 384].map((i) => words[i]), [-1, -7, -(2 ** 31)]);
    team.run("add", []);
    team.close();
  });
}

Deno.test("a team runs many thousand calls in order, spinning or asleep in between", async () => {
  const threads = 3;
  const { team, numbers } = await openWorkshop({ threads });
  const random = xoroshiro128plus(6);
  const below = (end: number) => (random.next() >>> 0) % end;
  const expected = new Float64Array(64);
  for (let call = 0; call < 20_000; call++) {
    // Distinct places per call; the order of calls decides what a place holds in the end.
    const first = below(64);
    const places = Array.from({ length: 1 + below(threads) }, (_, i) => (first + 7 * i) % 64);
    if (below(2)) {
      team.run("add", places.map((place) => [8 * place, call]));
      for (const place of places) expected[place] += call;
    } else {
      team.run("put", places.map((place) => [8 * place, call]));
      const halves = new Int32Array(expected.buffer);
      for (const place of places) halves[2 * place] = call;
    }
    if (below(200) === 0) await pause(below(4));
  }
  assert.deepEqual(numbers.slice(0, 64), expected);
  team.close();
});

Deno.test("whoever sleeps is woken", async () => {
  const { team } = await openWorkshop();
  const tookMs: number[] = [];
  for (let call = 0; call < 21; call++) {
    await pause(5); // Helpers spin for three tenths of a millisecond at most.
    const began = performance.now();
    team.run("add", [[0, 1], [256, 1]]);
    tookMs.push(performance.now() - began);
  }
  team.close();
  // Nobody sleeps for ever: without a call a helper wakes after a second and a caller after 50 ms. Waking takes some 50
  // us, and rarely milliseconds where other programs want all cores.
  const [median] = tookMs.sort((a, b) => a - b).slice(10);
  assert(median < 40, `${median} ms`);
});

Deno.test("a team of one thread starts none and calls", async () => {
  const start: StartThread = () => assert.fail("a thread was started");
  const { team, numbers } = await openWorkshop({ threads: 1, start });
  team.run("add", [[0, 5]]);
  assert.equal(numbers[0], 5);
  assert.throws(() => team.run("trapIf", [[1]]), lost(/trapIf .*unreachable.*" on thread 0/));
  assert.throws(() => team.run("add", [[0, 5]]), lost(/trapIf/));
  assert.equal(numbers[0], 5);
  team.close();
});

Deno.test("a trap on a helper is the team's end, told again at every call", async () => {
  const { team, numbers } = await openWorkshop({ threads: 3 });
  team.run("trapIf", [[0], [0], [0]]);
  const first = thrownBy(() => team.run("trapIf", [[0], [0], [1]]));
  assert(lost(/Cannot finish trapIf as it must not trap: .*unreachable.*" on thread 2/)(first));
  assert.equal(thrownBy(() => team.run("add", [[0, 1]])), first);
  assert.equal(numbers[0], 0);
  team.close();
});

Deno.test("an access out of bounds on a helper is such a trap", async () => {
  const { team } = await openWorkshop();
  assert.throws(
    () => team.run("put", [[0, 1], [65_536, 1]]),
    lost(/out of bounds.* on thread 1/),
  );
});

Deno.test("a trap on the caller's thread waits for the helpers first", async () => {
  const { team, words } = await openWorkshop({ timeoutMs: 300 });
  const began = performance.now();
  const error = thrownBy(() => team.run("hold", [[65_536], [64]]));
  const tookMs = performance.now() - began;
  Atomics.store(words, 16, 1); // Lets the helper go.
  assert(lost(/Cannot finish hold as it must not trap: .* on thread 0/)(error));
  assert((error as DeviceError).cause instanceof WebAssembly.RuntimeError);
  // Timers may round down by a millisecond.
  assert(tookMs >= 299 && tookMs < BOUND_MS, `${tookMs} ms`);
  assert.equal(thrownBy(() => team.run("add", [[0, 1]])), error);
});

Deno.test("a helper that does not finish in time is the team's end", async () => {
  const { team, words } = await openWorkshop({ timeoutMs: 300 });
  words[0] = 1;
  team.run("hold", [[0], [0]]);
  const began = performance.now();
  const error = thrownBy(() => team.run("hold", [[0], [64]]));
  const tookMs = performance.now() - began;
  Atomics.store(words, 16, 1); // Lets the helper go.
  assert(lost(/Cannot finish hold .* 300 ms .* thread 1/)(error));
  // Timers may round down by a millisecond.
  assert(tookMs >= 299 && tookMs < BOUND_MS, `${tookMs} ms`);
  assert.equal(thrownBy(() => team.run("hold", [[0], [0]])), error);
});

Deno.test("a helper that died without a word is missed at the deadline", async () => {
  const { team } = await openWorkshop({ timeoutMs: 100, start: dead });
  const began = performance.now();
  assert.throws(() => team.run("add", [[0, 1], [8, 1]]), lost(/100 ms .* thread 1/));
  assert(performance.now() - began < BOUND_MS);
});

Deno.test("a stop of the process while a helper is at work does not count as its time", async () => {
  const { team, numbers, words } = await openWorkshop({ timeoutMs: 5000 });
  words[2] = 1; // The caller's own part is done at once, the helper's once another thread says so.
  const code = `onmessage = ({ data }) => {
    setTimeout(() => Atomics.store(data, 64, 1), 300);
    postMessage("begun");
  };`;
  const url = `data:text/javascript,${encodeURIComponent(code)}`;
  const other = new Worker(url, { type: "module" });
  other.postMessage(words);
  // Browsers start a worker only while its maker has turns.
  await new Promise((resolve) => other.addEventListener("message", resolve, { once: true }));
  const { now } = performance;
  const stop = now.call(performance) + 150;
  performance.now = () => {
    const ms = now.call(performance);
    return ms < stop ? ms : ms + 60_000; // As if nobody had run for a minute.
  };
  try {
    team.run("hold", [[8], [256]]);
    team.run("add", [[512, 1], [1024, 2]]);
  } finally {
    performance.now = now;
    other.terminate();
  }
  assert.deepEqual([numbers[64], numbers[128]], [1, 2]);
  team.close();
});

Deno.test("a program that a policy keeps from loading is told from one that fails", async () => {
  const start: StartThread = ({ refused }) => ({ post: refused, rest: () => {}, end: () => {} });
  await assert.rejects(openWorkshop({ start }), {
    name: "DeviceError",
    code: "unsupported",
    message:
      /Content-Security-Policy must allow workers from blob: URLs: add blob: to .* worker-src/,
  });
});

Deno.test("a helper that was terminated is missed at the next call", async () => {
  let terminate = () => {};
  const { promise: told, resolve } = Promise.withResolvers<void>();
  const start: StartThread = ({ greeted, ended, refused }) => {
    const hear = (reason: string) => {
      ended(reason);
      resolve();
    };
    const thread = startThread({ greeted, ended: hear, refused });
    terminate = thread.end;
    return thread;
  };
  const { team, numbers } = await openWorkshop({ start });
  terminate();
  await told;
  assert.throws(() => team.run("add", [[0, 1], [8, 1]]), lost(/thread 1 must be alive/));
  assert.equal(numbers[0], 0);
});

Deno.test("close() ends a team, once", async () => {
  const { team, numbers } = await openWorkshop();
  team.close();
  team.close();
  assert.throws(() => team.run("add", [[0, 1]]), lost(/open: current value is closed/));
  assert.equal(numbers[0], 0);
});

Deno.test("a helper that never gets ready is an error in time, and ends the others", async () => {
  let ended = 0;
  const start: StartThread = () => ({ post: () => {}, rest: () => {}, end: () => void ended++ });
  const began = performance.now();
  await assert.rejects(
    openWorkshop({ threads: 3, timeoutMs: 100, start }),
    lost(/all its threads must become ready: .*more than 100 ms/),
  );
  assert(performance.now() - began < BOUND_MS);
  assert.equal(ended, 2);
});

Deno.test("a module that a helper cannot instantiate is an error with the reason", async () => {
  // (module (import "env" "memory" (memory 1 1 shared)) (import "env" "f" (func))): there is no f.
  const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 24, 2, 3, 101, 110, 118, 6];
  bytes.push(109, 101, 109, 111, 114, 121, 2, 3, 1, 1, 3, 101, 110, 118, 1, 102, 0, 0);
  const module = await WebAssembly.compile(Uint8Array.from(bytes));
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  for (const start of [startThread, startWebThread]) {
    await assert.rejects(
      createTeam({ module, memory, exports: {}, threads: 2, timeoutMs: BOUND_MS }, start),
      lost(/all its threads must become ready: .*thread 1: LinkError/),
    );
  }
});

Deno.test("a platform without workers is told apart", async () => {
  const start: StartThread = () => {
    throw new DeviceError("Cannot start a thread", "unsupported");
  };
  await assert.rejects(openWorkshop({ start }), { name: "DeviceError", code: "unsupported" });
});

Deno.test("the addresses of web helpers' programs are revoked", async () => {
  const { createObjectURL } = URL;
  const made: string[] = [];
  URL.createObjectURL = (blob) => {
    made.push(createObjectURL(blob));
    return made.at(-1)!;
  };
  try {
    const { team } = await openWorkshop({ threads: 3, start: startWebThread });
    team.close();
  } finally {
    URL.createObjectURL = createObjectURL;
  }
  assert.equal(made.length, 2);
  for (const url of made) await assert.rejects(fetch(url), TypeError);
});

Deno.test("where memory is not shared, or the thread may not block, there is one thread", async () => {
  assert(sharesMemory() && mayBlock());
  Object.defineProperty(globalThis, "crossOriginIsolated", { value: false, configurable: true });
  try {
    assert.equal(sharesMemory(), false);
    assert.match(whyOneThread() ?? "", /Cross-Origin-Opener-Policy: same-origin/);
    await using device = await wasmDevice({ threads: 4 });
    assert.equal(device.info.threads, 1);
    assert.equal(device.info.threadsReason, whyOneThread());
    await using alone = await wasmDevice();
    assert.equal(alone.info.threadsReason, null);
  } finally {
    delete (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  }
  const { wait } = Atomics;
  Atomics.wait = () => {
    throw new TypeError("Atomics.wait cannot be called in this context");
  };
  try {
    assert.equal(mayBlock(), false);
    assert.match(whyOneThread() ?? "", /may not wait: open the device in a worker/);
  } finally {
    Atomics.wait = wait;
  }
});
