/** MPI between two hosts: results equal one process, and a rank that is killed on the other host is noticed. */

import assert from "node:assert/strict";
import { canMakeHosts, makeHosts } from "../hosts.ts";
import { hasMpi, launch, mpiKit, withFolder } from "../mpi_kit.ts";
import { register } from "../kit.ts";
import { checkTogether } from "../suites/law.ts";
import { inTier, isRun } from "../tier.ts";

const PROGRAM = new URL("../mpi/program.ts", import.meta.url).href;
// To try is to make some, so not where nothing is run on them.
const possible = !isRun("full") || await canMakeHosts();

for (const family of ["Open MPI", "MPICH"] as const) {
  const kit = { name: `${family} on two hosts`, tier: "full" } as const;
  if (!possible || !(await hasMpi(family))) {
    Deno.test.ignore(`${kit.name}: everything (no launcher, or no right to make hosts)`, () => {});
    continue;
  }
  inTier(kit, (kit) => {
    register(kit, "any partition of a batch over ranks equals one rank", async () => {
      const hosts = await makeHosts();
      try {
        const before = await hosts.sent();
        await checkTogether(mpiKit(family, hosts), { numRuns: 100, seed: 2028 });
        // The ranks have really talked over the cable: the greeting alone is less than 10 KB.
        assert(await hosts.sent() - before > 30_000);
      } finally {
        await hosts.remove();
      }
    });
    register(kit, "a rank that is killed ends the job", async () => {
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
    });
  });
}
