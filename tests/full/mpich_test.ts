/** MPICH's groups, and the tasks that only groups over MPI need. */

import { mpiGroupSuite, mpiTaskSuite } from "../mpi/suite.ts";
import { mpiLongSuite } from "../mpi/long_suite.ts";

await mpiGroupSuite("MPICH");
await mpiTaskSuite("MPICH");
await mpiLongSuite("MPICH");
