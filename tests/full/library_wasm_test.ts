/** The library's own parts on the Wasm kernels too, two threads of them. */

import { librarySuite } from "../library_suite.ts";
import { sharedWasmKit } from "../wasm_kit.ts";

const name = "wasm, relaxed, 2 threads";
const opening = { build: "relaxed", options: { threads: 2 }, least: 32, tier: "full" } as const;
const { kit, closing } = await sharedWasmKit(name, opening);
librarySuite(kit);
closing("no guard zone was touched at the end of the library's tests");
