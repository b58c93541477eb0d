/** Groups of workers that have a port each: a page that may share no memory has no other. */

import { groupSuite } from "../../group_suite.ts";
import { portsKit } from "../../workers_kit.ts";

groupSuite({ ...portsKit, tier: "quick" });
