import assert from "node:assert/strict";
import {
  type SpawnOptions,
  spawnWorkers,
  transfers,
  workerGroup,
  type WorkerSeat,
  workerSeats,
} from "../lib/groups/workers.ts";
import { mayBlock } from "../lib/threads.ts";
import { CollectiveError } from "../mod.ts";
import { inOneFile } from "./bundled.ts";
import { counting } from "./signals.ts";
import { groupSuite } from "./group_suite.ts";
import { sharedKit } from "./workers_kit.ts";

groupSuite(sharedKit);

const here = (path: string) => new URL(`./workers/${path}`, import.meta.url).href;
const ranks = async () => new URL(await inOneFile(here("ranks.ts")));
const spawn = async (name: string, worldSize: number, options: SpawnOptions<string> = {}) =>
  await spawnWorkers<string, unknown>(await ranks(), worldSize, { ...options, parameter: name });
const transports = ["shared", "port"] as const;

for (const transport of transports) {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`workers over ${transport}: ${name}`, body);

  test("spawnWorkers() returns what the ranks return, in rank order", async () => {
    assert.deepEqual(await spawn("rankAndTotal", 3, { transport }), [[0, 3], [1, 3], [2, 3]]);
  });
  test("a rank that throws fails the others at once, and is what spawnWorkers() throws", async () => {
    const start = performance.now();
    await assert.rejects(spawn("throwInRank1", 3, { transport }), (error: Error) => {
      assert.deepEqual([error.name, error.message], ["RangeError", "out of data"]);
      return true;
    });
    assert(performance.now() - start < 20_000);
  });
  test("of a failure and its consequences spawnWorkers() throws the failure", async () => {
    for (let i = 0; i < 5; i++) {
      await assert.rejects(
        spawn("throwInRank1AndTellOthers", 3, { transport }),
        /^RangeError: out/,
      );
    }
  });
  test("a rank that closes its worker is noticed at once", async () => {
    await assert.rejects(
      spawn("closeRank1", 3, { transport }),
      /Rank 1 closed its worker before its body had ended/,
    );
  });
  test("a rejection that nobody handles fails its rank", async () => {
    await assert.rejects(
      spawn("rejectInRank1", 2, { transport }),
      /The worker of rank 1 failed: .*nobody listens/,
    );
  });
  test("a rank that ends fails those who wait for it, in sub-groups too", async () => {
    for (const [name, ended] of [["endEarly", 1], ["endEarlyInHalf", 1]] as const) {
      await assert.rejects(spawn(name, 4, { transport, timeoutMs: Infinity }), (error) => {
        assert(error instanceof CollectiveError);
        assert.deepEqual([error.code, error.ranks], ["rankFailed", [ended]]);
        assert.match(error.message, /"epoch", as rank 1 ended before it/);
        return true;
      });
    }
  });
  test("arrays of any length travel", async () => {
    assert.deepEqual(await spawn("manyLengths", 2, { transport }), ["done", "done"]);
  });
  test("a worker that is terminated is named to the others, at once by leave()", async () => {
    for (const told of [true, false]) {
      const { seats, leave, close } = workerSeats(3, { transport, timeoutMs: 2000 });
      const workers = await Promise.all(seats.map(() => startOwn()));
      const totals = workers.map(next);
      seats.forEach((seat, rank) =>
        workers[rank].postMessage({ seat, wait: "async" }, transfers(seat))
      );
      assert.deepEqual(await Promise.all(totals), [6, 6, 6]);
      const failures = [next(workers[0]), next(workers[2])];
      workers[1].terminate();
      const start = performance.now();
      if (told) leave(1, { cause: new Error("terminated") });
      const [first, second] = await Promise.all(failures) as Record<string, unknown>[];
      assert.deepEqual(first, second);
      assert.deepEqual([first.code, first.ranks], [told ? "rankFailed" : "deadline", [1]]);
      assert.match(
        String(first.message),
        told
          ? /Rank 1 of this group of 3 failed after 1 calls: terminated/
          : /call 2, allReduce "second", as rank 1 did not arrive within 2000 ms/,
      );
      assert(performance.now() - start < 2000 + 1000);
      workers.forEach((worker) => worker.terminate());
      close();
    }
  });
}

for (const wait of ["async", "block"] as const) {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`workers that wait by "${wait}": ${name}`, body);

  test("ranks that are busy with collectives are alive after others have ended", async () => {
    const told = await spawn("goOnWithout0", 3, { wait, timeoutMs: 600 });
    assert.deepEqual(told, ["left", "went on", "went on"]);
  });
  test("collectives leave timers their turns", async () => {
    assert.deepEqual(await spawn("tickWhileCalling", 2, { wait }), [true, true]);
  });
  test("groups can be split again and again", async () => {
    assert.deepEqual(await spawn("splitOften", 2, { wait }), ["done", "done"]);
  });
  test("areas of sub-groups of all sizes serve again, as good as new", async () => {
    await assert.rejects(
      spawn("splitInAllSizes", 3, { wait, timeoutMs: 20_000 }),
      /"last", as rank 1 ended before it/,
    );
  });
}

Deno.test("workers over port: groups can be split again and again", async () => {
  assert.deepEqual(await spawn("splitOverPorts", 2, { transport: "port" }), ["done", "done"]);
});

Deno.test("ranks that exit their workers are noticed, whoever waits for them", async () => {
  for (const [name, ranks] of [["exitRank1", 3], ["endSilently", 2], ["exitAll", 2]] as const) {
    const start = performance.now();
    await assert.rejects(spawn(name, ranks), /Rank \d closed its worker before its body had ended/);
    assert(performance.now() - start < 20_000);
  }
});

Deno.test("a worker that is terminated while nobody waits for it is noticed", async () => {
  const module = await ranks();
  const start = (rank: number) => {
    const worker = new Worker(module, { type: "module" });
    // Once it serves, and the others do.
    const later = () => setTimeout(() => worker.terminate(), 300);
    if (rank === 1) worker.addEventListener("message", later, { once: true });
    return worker;
  };
  await assert.rejects(
    spawnWorkers(start, 2, { parameter: "slow", timeoutMs: 600 }),
    /The worker of rank 1 ended without a word, or was busy for 600 ms/,
  );
});

Deno.test("a rank that takes its time after others have ended is alive, though nobody listens", async () => {
  const run = spawn("slow", 2, { timeoutMs: 700 });
  await new Promise((resolve) => setTimeout(resolve, 300));
  holdUp(1200);
  assert.deepEqual(await run, [0, 1]);
});

Deno.test("a failure is thrown also where its consequences are known first", async () => {
  await assert.rejects(spawn("consequenceFirst", 3), /^RangeError: out of data/);
  await assert.rejects(
    spawn("consequenceFirstAndHang", 3, { timeoutMs: 500 }),
    /^RangeError: out of data/,
  );
});

Deno.test("the time of a call is up while the last rank combines: all get the deadline", async () => {
  const all = await spawn("combineSlowly", 2, { timeoutMs: 500, transport: "shared" });
  for (const { message } of all as { readonly message: string }[]) {
    assert.match(message, /rank 1 did not come to an end of combining within 500 ms/);
  }
});

Deno.test("spawnWorkers() lets go of its signal", async () => {
  const { signal, listeners } = counting();
  await spawn("rankAndTotal", 1, { signal });
  assert.equal(listeners(), 0);
});

Deno.test("spawnWorkers() ends ranks that do not end after a failure", async () => {
  const start = performance.now();
  await assert.rejects(spawn("hangAfterFailure", 2, { timeoutMs: 200 }), /first of all/);
  assert(performance.now() - start < 20_000);
});

Deno.test("spawnWorkers() ends all workers by its signal", async () => {
  const controller = new AbortController();
  const run = spawn("neverEnd", 2, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 100);
  await assert.rejects(run, /enough/);
  assert.throws(() => controller.signal.throwIfAborted());
  await assert.rejects(spawn("neverEnd", 2, { signal: controller.signal }), /enough/);
});

Deno.test("what cannot travel is its rank's failure", async () => {
  await assert.rejects(spawn("returnAFunction", 2), /could not be cloned/);
  const parameter = () => 1;
  await assert.rejects(spawnWorkers(await ranks(), 2, { parameter }), /could not be cloned/);
});

Deno.test("a rank that returns what lives on its device is told to read it first", async () => {
  await assert.rejects(spawn("returnATensor", 2), {
    name: "TypeError",
    message:
      /Cannot return "step\.0\.output\.data" from a rank .* live array .* read it first, by toArray/,
  });
});

Deno.test("an error whose texts are none is its rank's failure all the same", async () => {
  await assert.rejects(spawn("throwOddly", 2), /an object without a text/);
});

Deno.test("workers that cannot be loaded, or serve no rank, are errors that name them", async () => {
  const nowhere = new URL("./workers/nowhere.ts", import.meta.url);
  await assert.rejects(
    spawnWorkers(nowhere, 2),
    /The worker of rank \d failed before it served, as its module .*nowhere\.ts could not be loaded/,
  );
  const idle = "data:text/javascript,setInterval(() => {}, 1000)";
  await assert.rejects(
    spawnWorkers(idle, 1, { startTimeoutMs: 200 }),
    /Cannot start rank 0 as its worker must call serveRank\(\): .*setInterval.* did not within 200 ms/,
  );
});

Deno.test("spawnWorkers() takes a function that starts the workers", async () => {
  const module = await ranks();
  const started: number[] = [];
  const start = (rank: number) => {
    started.push(rank);
    return new Worker(module, { type: "module" });
  };
  await spawnWorkers(start, 2, { parameter: "rankAndTotal" });
  assert.deepEqual(started, [0, 1]);
});

Deno.test("blocked ranks and ranks that are not meet in one group", async () => {
  const { seats } = workerSeats(2, { transport: "shared", timeoutMs: 5000 });
  const workers = await Promise.all(seats.map(() => startOwn()));
  const totals = workers.map(next);
  seats.forEach((seat, rank) =>
    workers[rank].postMessage({ seat, wait: rank === 0 ? "block" : "async" })
  );
  assert.deepEqual(await Promise.all(totals), [3, 3]);
  workers.forEach((worker) => worker.terminate());
});

Deno.test("a group of workers refuses what it must not be made of", () => {
  for (const worldSize of [0, 1.5, NaN]) {
    assert.throws(() => workerSeats(worldSize), /worldSize must be an integer >= 1/);
  }
  assert.throws(() => workerSeats(2, { timeoutMs: 0 }), /timeoutMs must be in/);
  assert.throws(() => workerSeats(2, { capacity: 0 }), /capacity must be an integer from 1/);
  assert.throws(() => workerSeats(2, { transport: "pigeon" as never }), /transport must be/);
  const { seats, leave, close } = workerSeats(1, { transport: "port" });
  assert.throws(() => workerGroup(seats[0], { wait: "block" }), /needs shared memory/);
  assert.throws(() => workerGroup(seats[0], { wait: "spin" as never }), /wait must be/);
  assert.throws(() => leave(1), /rank must be below 1: current value is 1/);
  close();
  const noSeat = { rank: 0, worldSize: 1, timeoutMs: 1, link: {} } as WorkerSeat;
  assert.throws(() => workerGroup(noSeat), /must be a seat's SharedArrayBuffer/);
});

/** Holds up this thread: asleep where it may be, and busy where it may not, as a page's own. */
function holdUp(ms: number): void {
  if (mayBlock()) return void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
  for (const end = performance.now() + ms; performance.now() < end;);
}

/** Starts a worker, and waits until it is loaded. */
async function startOwn(): Promise<Worker> {
  const worker = new Worker(await inOneFile(here("own_worker.ts")), {
    type: "module",
  });
  assert.equal(await next(worker), "ready");
  return worker;
}

/** The next message of a worker. */
function next(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.addEventListener("message", ({ data }) => resolve(data), { once: true });
    worker.addEventListener("error", (event) => {
      event.preventDefault(); // Else it would end the whole run.
      reject(new Error(event.message));
    }, { once: true });
  });
}
