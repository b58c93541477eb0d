/** What is the Wasm device's own: guarded memory, numbers at every shape, memory, views, handles, the same bits. */

import { allocationTests } from "./wasm/allocation.ts";
import { exactnessTests } from "./wasm/exactness.ts";
import { exhaustionTests } from "./wasm/exhaustion.ts";
import { guardTests } from "./wasm/guards.ts";
import { halfTests } from "./wasm/halves.ts";
import { handleTests } from "./wasm/handles.ts";
import { parityTests } from "./wasm/parity.ts";
import { secondTests } from "./wasm/second.ts";

guardTests();
parityTests();
secondTests();
allocationTests();
exhaustionTests();
handleTests();
halfTests();
exactnessTests();
