/** Groups of workers over shared memory. */

import "../../workers_test.ts";
