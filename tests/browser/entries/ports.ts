/** Groups of workers that have a port each: a page that may share no memory has no other. */

import { groupSuite as collectives } from "../../suites/groups.ts";
import { portsKit } from "../../workers_kit.ts";

collectives(portsKit);
