/** Open MPI's groups, and the tasks that only groups over MPI need. */

import { mpiGroupSuite, mpiTaskSuite } from "../mpi/suite.ts";

await mpiGroupSuite("Open MPI");
await mpiTaskSuite("Open MPI");
