/** MPICH's groups, and the tasks that only groups over MPI need. */

import { mpiGroupSuite, mpiTaskSuite } from "../mpi/suite.ts";

await mpiGroupSuite("MPICH");
await mpiTaskSuite("MPICH");
