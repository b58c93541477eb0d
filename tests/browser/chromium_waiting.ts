/** What mostly waits in Chromium, beside what computes: part of `deno task test:browser`. */

import { browserTests } from "./suites.ts";

await browserTests("chromium", "waiting");
