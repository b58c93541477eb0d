/** Open MPI's groups, and what only groups over MPI need. */

import { mpiGroupSuite } from "../mpi/suite.ts";

await mpiGroupSuite("Open MPI");
