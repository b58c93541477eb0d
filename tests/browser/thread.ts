/** A thread of the caller's own address. */

import { serveThread } from "../../kernels/wasm_thread.ts";

serveThread();
