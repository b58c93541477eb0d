/** What a family of MPI must pass, as a kind of group and as a launcher of programs. */

import assert from "node:assert/strict";
import type { MpiFamily } from "../../lib/groups/mpi.ts";
import { groupSuite } from "../group_suite.ts";
import { type RankTask, register } from "../kit.ts";
import { longTests } from "./long_suite.ts";
import * as tasks from "./tasks.ts";
import {
  hasMpi,
  launch,
  type Launched,
  type MpiKit,
  mpiKit,
  runAlone,
  withFolder,
} from "../mpi_kit.ts";
import { inTier } from "../tier.ts";
import type { Wanted } from "./worlds.ts";

/** The program that ranks run. */
export const PROGRAM = new URL("./program.ts", import.meta.url).href;
const TASKS = new URL("./tasks.ts", import.meta.url).href;

const LIBRARY: Record<MpiFamily, string> = {
  "Open MPI": "libmpi.so.40",
  "MPICH": "libmpich.so.12",
};

const start = (
  family: MpiFamily,
  ranks: number,
  args: readonly string[],
  permissions?: readonly string[],
): Promise<Launched> =>
  withFolder((folder) => launch(family, ranks, [PROGRAM, ...args], { permissions, folder }));

const same = <T>(results: readonly T[]): T => {
  for (const result of results) assert.deepEqual(result, results[0], "equal on every rank");
  return results[0];
};

/** What registers a task of tasks.ts, and a check of what comes of it, as a test of a kit. */
function tester(kit: MpiKit) {
  return function test<P, R>(
    name: string,
    ranks: number,
    body: RankTask<P, R>["body"],
    parameter: P,
    check: (results: R[]) => void,
    wanted: Wanted = {},
  ): void {
    register(kit, name, async () => {
      check(await kit.run(ranks, { module: TASKS, name: body.name, body }, parameter, wanted));
    });
  };
}

function taskTests(kit: MpiKit): void {
  const test = tester(kit);

  test("any combine keeps to the order of 1 to 8 ranks", 8, tasks.composeInOrder, null, (kept) => {
    assert.deepEqual(same(kept.slice(0, 1)), Array(32).fill(true));
    assert.ok(kept.flat().every(Boolean));
  });
  for (const ranks of [2, 3, 5]) {
    test(
      `moments have the same bits on ${ranks} ranks`,
      ranks,
      tasks.mergeSameBits,
      null,
      (all) => {
        assert.equal(same(all).length, 4);
      },
    );
  }
  test("calls of several groups are in flight at once", 4, tasks.crossGroups, null, (results) => {
    const [rows, columns] = [[1, 1, 3, 3], [0, 1, 0, 1]];
    results.forEach((own, rank) => {
      assert.deepEqual(own, Array(50).fill([rows[rank], columns[rank], 6, 3]));
    });
  });
  test("a function by the name of sum is told apart", 2, tasks.disguise, null, (results) => {
    const [{ code, message }, total] = same(results);
    assert.deepEqual([code, total], ["disagreement", 2]);
    assert.match(message, /with (sum\d*) .* rank 1 called .* with \1 .*\(not the library's\)/);
  });
  test("labels that look alike are told apart", 2, tasks.labelInvisibly, null, (results) => {
    assert.deepEqual(same(results), ["disagreement", 2]);
  });
  for (const how of ["sum", "split"] as const) {
    test(`a rank at work in slices keeps up with ${how}`, 3, tasks.workInSlices, how, (results) => {
      assert.equal(same(results), "ok");
    }, { timeoutMs: 400 });
  }
  test("a leader that is busy says what all say", 4, tasks.leadBusily, null, (results) => {
    assert.equal(same(results).code, "deadline");
  }, { timeoutMs: 400 });
  test("a long message and a late rank are one error", 3, tasks.failAtLength, null, (results) => {
    const { code, ranks } = same(results);
    assert.deepEqual([code, ranks], ["deadline", [2]]);
  }, { timeoutMs: 400 });
  test("splits in another order on each rank do not hang", 2, tasks.splitCrosswise, null, (all) => {
    assert.deepEqual(all.map((own) => own.length), [2, 2]);
  }, { timeoutMs: 1000, whole: true });
  test("a combine that throws on one rank is an error on all", 2, tasks.combineUnevenly, null, (
    results,
  ) => {
    const [failure, total] = same(results);
    assert.deepEqual([failure.code, total], ["rankFailed", 2]);
    assert.match(failure.message, /combining failed: only here/);
  });
  test("labels too long to send are told apart", 2, tasks.disagreeAtLength, null, (results) => {
    const { code, message } = same(results);
    assert.equal(code, "disagreement");
    assert.match(message, /rank 0 called .*x\.\.\. \(\w+\); rank 1 called/);
  });
  test("ranks that cancel together get one error", 4, tasks.cancelTogether, null, (results) => {
    const { code, ranks } = same(results.flat());
    assert.deepEqual([code, ranks?.length], ["cancelled", 1]);
  });
  test("a signal during split() gives up the group", 3, tasks.cancelSplit, null, (results) => {
    assert.match(same(results).message, /call 1, split, as rank 0 cancelled it: enough/);
  });
  test(
    "a broken sub-group leaves its parent usable, but not fit for close()",
    4,
    tasks.breakSubGroup,
    null,
    (results) => {
      const [[first, total, refusal], [second]] = results;
      assert.deepEqual([first, first.code, total], [second, "cancelled", 4]);
      assert.match(refusal.message, /^Cannot close the MPI group as .* call abort\(\)/);
      assert.equal(results[2][0].message, "intact");
    },
    { whole: true },
  );
  test("a deadline is kept to within a second", 3, tasks.measureDeadline, 400, (delays) => {
    const waiting = [delays[0], delays[2]];
    assert.ok(waiting.every((ms) => ms >= 0 && ms < 1000), `${waiting} ms past the deadline`);
  }, { timeoutMs: 400 });
  test("a group is made once, and closed when nothing is pending", 2, tasks.endTwice, null, (
    results,
  ) => {
    const [twice, code, pending] = same(results);
    assert.match(twice, /^MpiError: Cannot make a second MPI group/);
    assert.match(code, /^RangeError: .*exit code must be an integer from 1 to 255.* 0$/);
    assert.match(pending, /^MpiError: .*no call must be pending/);
  }, { whole: true });
}

/** The last of all: they need a world of their own, which takes the place of another. */
function uncheckedTests(kit: MpiKit): void {
  const test = tester(kit);
  const unchecked = { checked: false };
  test("unchecked collectives do theirs", 4, tasks.workUnchecked, null, (results) => {
    assert.deepEqual(same(results), [6, 4, 1.5, 4, 3, 2]);
  }, unchecked);
  test("unchecked, a rank that fails breaks the group", 3, tasks.failUnchecked, null, (results) => {
    const { code, ranks, message } = same(results.flat());
    assert.deepEqual([code, ranks], ["rankFailed", [1]]);
    assert.match(message, /Rank 1 failed before call 1, allReduce "forward": no batch/);
  }, unchecked);
  test("unchecked, a combine that throws breaks the group", 2, tasks.throwUnchecked, null, (
    results,
  ) => {
    assert.match(same(results).message, /combining failed: cannot add/);
  }, unchecked);
}

function programTests(family: MpiFamily): void {
  const test = (name: string, body: () => Promise<void>) => Deno.test(`${family}: ${name}`, body);

  test("ranks know their place on the host", async () => {
    const { code, stdout } = await start(family, 2, ["close"]);
    assert.equal(code, 0);
    assert.deepEqual(stdout.trim().split("\n").sort(), [
      "rank 0 of 2, 0 of 2",
      "rank 1 of 2, 1 of 2",
    ]);
  });
  test("a rank that just ends is no success", async () => {
    const { code, stderr } = await start(family, 2, ["end"]);
    assert.notEqual(code, 0);
    assert.match(stderr, /ended without close\(\) or abort\(\): exit code 70/);
  });
  for (const what of ["exit", "throw", "kill"]) {
    test(`a rank that should ${what} ends the job, which is no success`, async () => {
      const permissions = ["--allow-ffi", "--allow-env", "--allow-run"];
      const { code, stderr } = await start(family, 3, [what], permissions);
      assert.notEqual(code, 0);
      if (what === "throw") assert.match(stderr, /out of data/);
    });
  }
  test("abort() ends those that wait, with its code", async () => {
    const { code } = await start(family, 2, ["abort"]);
    assert.equal(code, 7);
  });
  test("a rank that catches what mpiGroup() throws is no success either", async () => {
    assert.notEqual((await start(family, 2, ["catchChoices"])).code, 0);
  });
  test("after close() there is nothing left to close, and abort() just ends", async () => {
    const { code, stderr } = await start(family, 2, ["abortAfterClose"]);
    assert.equal(code, 9);
    assert.match(stderr, /close\(\) has ended MPI/);
  });
  test("ranks that differ in checked are refused", async () => {
    const { code, stderr } = await start(family, 2, ["choices"]);
    assert.notEqual(code, 0);
    assert.match(stderr, /RangeError: Cannot make the MPI group as checked must be the same/);
  });
  test("a missing permission is named", async () => {
    const noEnv = await start(family, 1, ["close"], ["--allow-ffi"]);
    assert.match(noEnv.stderr, /MpiError permission: .*--allow-env=OMPI_COMM_WORLD_SIZE,PMI_SIZE/);
    const noFfi = await start(family, 1, ["close"], ["--allow-env"]);
    assert.match(noFfi.stderr, /MpiError permission: .*--allow-ffi, or with --allow-ffi=PATH/);
  });
  test("a process without a launcher is a world of one", async () => {
    const options = JSON.stringify({ library: LIBRARY[family] });
    const { code, stdout, stderr } = await runAlone([PROGRAM, "close", options]);
    assert.deepEqual([code, stdout], [0, "rank 0 of 1, 0 of 1\n"], stderr);
  });
}

/** The launcher of one MPI and the library of the other. */
function pairTest(family: MpiFamily, other: MpiFamily): void {
  Deno.test(`${family}: the library of ${other} is refused`, async () => {
    const options = JSON.stringify({ library: LIBRARY[other] });
    const { code, stderr } = await start(family, 2, ["close", options]);
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`MpiError launcher: .*must be of one MPI.* ${other}`));
  });
}

/**
 * Registers what groups over MPI must do for a family: what every kind of group must, what only these need (messages in flight,
 * labels, slices, ends of all kinds), long arrays.
 */
export async function mpiGroupSuite(family: MpiFamily): Promise<void> {
  if (!await hasMpi(family)) return Deno.test.ignore(`${family}: groups (no launcher)`, () => {});
  inTier({ ...mpiKit(family), tier: "full" } as MpiKit, (kit) => {
    groupSuite(kit);
    taskTests(kit);
    longTests(kit, family);
    uncheckedTests(kit);
    register(kit, "ranks that have done all of this end well", kit.close);
  });
}

/** Registers a family's launcher: programs that end well and badly, and the library of the other family. */
export async function mpiProgramSuite(family: MpiFamily, other: MpiFamily): Promise<void> {
  if (!await hasMpi(family)) return Deno.test.ignore(`${family}: programs (no launcher)`, () => {});
  programTests(family);
  if (await hasMpi(other)) pairTest(family, other);
}
