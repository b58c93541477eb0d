/** Programs over both families of MPI; what groups over them must pass is in full/. */

import assert from "node:assert/strict";
import { mpiProgramSuite, PROGRAM } from "./mpi/suite.ts";
import { runAlone } from "./mpi_kit.ts";

await mpiProgramSuite("Open MPI", "MPICH");
await mpiProgramSuite("MPICH", "Open MPI");

Deno.test("mpiGroup() names the packages where there is no library, or what it was given", async () => {
  const missing = JSON.stringify({ library: "/nowhere/libmpi.so" });
  const { code, stderr } = await runAlone([PROGRAM, "close", missing]);
  assert.equal(code, 3);
  assert.match(stderr, /MpiError library: .*must be installed: tried \/nowhere\/libmpi\.so; Could/);
  const none = JSON.stringify({ library: "libc.so.6" });
  assert.match(
    (await runAlone([PROGRAM, "close", none])).stderr,
    /MpiError library: .*libc\.so\.6/,
  );
});

Deno.test("mpiGroup() refuses a worker and an impossible deadline", async () => {
  assert.match((await runAlone([PROGRAM, "worker"])).stderr, /main thread of a process/);
  const options = JSON.stringify({ timeoutMs: 0 });
  assert.match(
    (await runAlone([PROGRAM, "close", options])).stderr,
    /RangeError .*timeoutMs must be in/,
  );
});
