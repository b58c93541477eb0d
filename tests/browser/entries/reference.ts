/** The reference device, the library's own parts on it, and groups of one thread. */

import "../../reference_device_test.ts";
import "../../digest_test.ts";
import "../../moments_test.ts";
import "../../tree_test.ts";
import "../../patience_test.ts";
import "../../fold_test.ts";
import "../../fold_errors_test.ts";
import "../../queued_device_test.ts";
import "../../in_process_test.ts";
import "../../worker_groups_test.ts";
