/** The reference device, the library's own parts, and groups whose ranks share a thread. */

import { deviceSuite } from "../../device_suite.ts";
import { librarySuite } from "../../library_suite.ts";
import { queuedKit, referenceKit } from "../../reference_kit.ts";
import { leaveOut } from "../inside/deno.ts";

deviceSuite({ ...referenceKit, cases: 30 });
librarySuite(queuedKit);
await import("../../digest_test.ts");
await import("../../moments_test.ts");
await import("../../tree_test.ts");
await import("../../patience_test.ts");
await import("../../fold_test.ts");
await import("../../in_process_test.ts");
await import("../../worker_groups_test.ts");

const HEAP = "how large the heap is, a page is not told";
leaveOut({
  "splitting does not keep sub-groups alive in an inProcessGroup()": HEAP,
  "splitting does not keep sub-groups alive in runRanks()": HEAP,
});
