/** Long arrays over MPI that functions of the program fold: what comes of them, and what they take. */

import assert from "node:assert/strict";
import type { MpiFamily } from "../../lib/groups/mpi.ts";
import { type RankTask, register } from "../kit.ts";
import { launch, type MpiKit, withFolder } from "../mpi_kit.ts";
import type { Wanted } from "./worlds.ts";
import * as tasks from "./long_tasks.ts";

const TASKS = new URL("./long_tasks.ts", import.meta.url).href;
const PROGRAM = new URL("./long_arrays.ts", import.meta.url).pathname;

/** Own, a copy of it, what comes, and what the function makes of both. */
const MOST = { turned: 4, combineMoments: 3 };
/** Beside the arrays: of 32 MB. */
const HEAPS = 0.25;

/** The most memory of each rank, in multiples of its array. */
async function mostOf(
  family: MpiFamily,
  name: string,
  ranks: number,
): Promise<readonly number[]> {
  const { code, stdout, stderr } = await withFolder((folder) =>
    launch(family, ranks, [PROGRAM, name, "4000001"], {
      permissions: ["--allow-all"],
      folder,
    })
  );
  assert.equal(code, 0, stderr);
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line));
  return lines.map(({ most }: { readonly most: number }) => most);
}

const same = <R>(results: readonly R[]): R => {
  for (const result of results) assert.deepEqual(result, results[0], "equal on every rank");
  return results[0];
};

/** Registers the tests of long arrays. */
export function longTests(kit: MpiKit, family: MpiFamily): void {
  function test<R>(
    name: string,
    ranks: number,
    body: RankTask<null, R>["body"],
    check: (results: R[]) => void,
    wanted: Wanted = {},
  ): void {
    register(kit, `long arrays: ${name}`, async () => {
      check(await kit.run(ranks, { module: TASKS, name: body.name, body }, null, wanted));
    });
  }
  const allRight = (results: readonly (readonly boolean[])[]) => {
    for (const right of results) assert.deepEqual(right, right.map(() => true));
  };

  for (const ranks of [1, 2, 5]) {
    test(`${ranks} ranks fold from left to right`, ranks, tasks.foldInTurn, allRight);
  }
  test("in two groups at once", 4, tasks.foldCrosswise, (results) => {
    assert.deepEqual(results, results.map(() => true));
  });
  test("a function that fails on one rank is an error on all", 5, tasks.foldUnevenly, (results) => {
    const reasons = [/only here$/, /must return a Float64Array of 70000 values/, /\[count, mean C/];
    same(results).forEach(([{ code, message }, total], i) => {
      assert.deepEqual([code, total], ["rankFailed", 5]);
      assert.match(message, /combining failed/);
      assert.match(message, reasons[Math.floor(i / 2)]);
    });
  });
  test("who waits for its turn can give up", 4, tasks.cancelInTurn, (results) => {
    const { code, ranks } = same(results);
    assert.deepEqual([code, ranks], ["cancelled", [3]]);
  });
  test("who folds beyond the deadline is named", 4, tasks.foldLate, (results) => {
    const { code, ranks } = same(results);
    assert.deepEqual([code, ranks], ["deadline", [1]]);
  }, { timeoutMs: 400 });
  test("unchecked, 3 ranks fold from left to right", 3, tasks.foldInTurn, allRight, {
    checked: false,
  });

  for (const name of ["turned", "combineMoments"] as const) {
    register(kit, `long arrays: no rank holds those of all, by ${name}`, async () => {
      const most = await mostOf(family, name, 4);
      assert(most.length === 4 && Math.max(...most) < MOST[name] + HEAPS, `${most} times`);
    });
  }
}
