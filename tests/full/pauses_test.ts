/** A stop of the process, however long, is no death: neither of a rank nor of a thread. */

import assert from "node:assert/strict";
import { hasMpi } from "../mpi_kit.ts";
import { fullTests } from "../tier.ts";
import { PAUSED } from "../pauses/program.ts";
import { stopOften } from "../pauses/stop.ts";

const TIMES = 4;

const register = fullTests("pauses");

function test(engine: string, isMpi: boolean, ignore = false): void {
  register(`a process that is stopped past the deadline goes on: ${engine}`, async () => {
    const { stops, results, wrong, failure } = await stopOften(engine, TIMES, isMpi);
    assert.equal(failure, "");
    assert.deepEqual([stops, wrong], [TIMES, 0]);
    assert(results > 20, `${results} results`);
  }, { ignore });
}

for (const engine of PAUSED) test(engine, false);
for (const family of ["Open MPI", "MPICH"] as const) test(family, true, !await hasMpi(family));
