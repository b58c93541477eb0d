/** MPICH's groups. */

import { mpiGroupSuite } from "../mpi/suite.ts";

await mpiGroupSuite("MPICH", "full");
