/** The tasks that only groups over MPI need, on Open MPI. */

import { mpiTaskSuite } from "../mpi/suite.ts";

await mpiTaskSuite("Open MPI");
