/** The tasks that only groups over MPI need, on Open MPI. */

import { mpiTaskSuite } from "../mpi/suite.ts";
import { mpiLongSuite } from "../mpi/long_suite.ts";

await mpiTaskSuite("Open MPI");
await mpiLongSuite("Open MPI");
