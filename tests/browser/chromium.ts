/** The suites in Chromium: part of `deno task test:browser`. */

import { browserTests } from "./suites.ts";

await browserTests("chromium", "computing");
