/** The suites in Firefox: part of `deno task test:browser`. */

import { browserTests } from "./suites.ts";

await browserTests("firefox", "computing");
