/** A page that trains on its main thread and in a worker, and sends home what came of it. */

import { type Outcome, say, trainHere } from "./wasm_worker.ts";

/** What came of the main thread, and of a worker. */
export interface WasmReport {
  readonly page: Outcome | string;
  readonly worker: Outcome | string;
}

/** What came of it; an error's message where there was one. */
const told = (outcome: Promise<Outcome>): Promise<Outcome | string> => outcome.catch(say);

const worker = new Worker("./wasm_worker.js", { type: "module" });
const answer = new Promise<Outcome | string>((resolve) => {
  worker.addEventListener("message", ({ data }) => resolve(data));
  worker.addEventListener("error", ({ message }) => resolve(message));
});
const report: WasmReport = { page: await told(trainHere()), worker: await answer };
await fetch("/report", { method: "POST", body: JSON.stringify(report) });
