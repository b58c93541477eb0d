/** MPI between two hosts: results equal one process, and a rank that is killed on the other host is noticed. */

import assert from "node:assert/strict";
import { canMakeHosts, makeHosts } from "./hosts.ts";
import { hasMpi, launch, mpiKit, withFolder } from "./mpi_kit.ts";
import { checkTogether } from "./suites/law.ts";

const PROGRAM = new URL("./mpi/program.ts", import.meta.url).href;
const possible = await canMakeHosts();

for (const family of ["Open MPI", "MPICH"] as const) {
  const ignore = !possible || !(await hasMpi(family));
  Deno.test({
    name: `${family} on two hosts: any partition of a batch over ranks equals one rank`,
    ignore,
    fn: async () => {
      const hosts = await makeHosts();
      try {
        const before = await hosts.sent();
        await checkTogether(mpiKit(family, {}, hosts), { numRuns: 100, seed: 2028 });
        // The ranks have really talked over the cable: the greeting alone is less than 10 KB.
        assert(await hosts.sent() - before > 30_000);
      } finally {
        await hosts.remove();
      }
    },
  });
  Deno.test({
    name: `${family} on two hosts: a rank that is killed ends the job`,
    ignore,
    fn: async () => {
      const hosts = await makeHosts();
      try {
        const started = performance.now();
        const { code } = await withFolder((folder) =>
          launch(family, 2, [PROGRAM, "kill"], { folder, hosts, permissions: ["--allow-all"] })
        );
        assert.notEqual(code, 0);
        assert(performance.now() - started < 20_000);
      } finally {
        await hosts.remove();
      }
    },
  });
}
