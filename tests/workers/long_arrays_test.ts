/** What memory long arrays take on their way over workers, each in a process of its own. */

import assert from "node:assert/strict";
import { bundled } from "../bundled.ts";
import { bundledWorker } from "../worker_rank.ts";

/** The first, the second and the last value of what 6 ranks come to; each mean is that of 1 to 6 weighted by themselves. */
const TOTALS: Record<string, readonly number[]> = {
  sum: [21, 21, 21],
  largest: [6, 6, 6],
  moments: [21, 91 / 21, 203 / 3],
  turned: [120, 120, 120],
};

for (const transport of ["shared", "port"]) {
  // By one function that may be cut, and by such that may not.
  const functions = [transport === "shared" ? "largest" : "sum", "moments", "turned"];
  Deno.test(`no rank holds the long arrays of all, over ${transport}`, async () => {
    const program = new URL("./long_arrays.ts", import.meta.url).pathname;
    const worker = await bundled(bundledWorker(import.meta.resolve("./long_arrays_rank.ts")));
    const [ranks, length] = ["6", "2000001"];
    for (const by of functions) {
      const args = [program, worker, transport, ranks, length, by];
      const run = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", "--no-check", ...args],
      }).output();
      assert(run.success, new TextDecoder().decode(run.stderr));
      const { totals, times } = JSON.parse(new TextDecoder().decode(run.stdout));
      for (const total of totals) {
        assert.equal(total.length, 3);
        total.forEach((value: number, i: number) =>
          assert(Math.abs(value - TOTALS[by][i]) < 1e-12, `${by}: ${value}`)
        );
      }
      // Four, the growth of seven heaps, and over ports the pieces that collectors have not come to.
      const most = transport === "shared" ? 4.5 : 8;
      assert(times < most, `${times} times the arrays by ${by}`);
    }
  });
}
