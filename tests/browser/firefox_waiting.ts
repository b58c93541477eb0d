/** What mostly waits in Firefox, beside what computes: part of `deno task test:browser`. */

import { browserTests } from "./suites.ts";

await browserTests("firefox", "waiting");
