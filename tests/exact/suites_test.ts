/** The exact Wasm device by the law and PyTorch's numbers: the reference has its bits. */

import { exactLaw, exactWasm } from "./suites.ts";

exactLaw(exactWasm);
