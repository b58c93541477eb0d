/** Exact devices by what all devices do alike; the reference by its law too. */

import { exactAlike, exactLaw, exactReference, exactWasm } from "../exact/suites.ts";

exactLaw({ ...exactReference, tier: "full" });
exactAlike({ ...exactReference, tier: "full" });
exactAlike({ ...exactWasm, tier: "full" });
