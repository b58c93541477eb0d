/** What a page of the tests of jax-js does: ranks in its one thread train on the backends of jax-js, and jax-js alone. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { webgpuDevice } from "../../kernels/webgpu_device.ts";
import { type Device, runRanks } from "../../mod.ts";
import { MLP, rowsOf, type Trained, trainRank, trainWhole } from "./jax_models.ts";
import type { JaxModule } from "./load_jax.ts";

/** What was trained on a backend. */
export interface Compared {
  readonly backend: "wasm" | "webgpu";
  readonly whole: Omit<Trained, "running">;
  readonly ranks: readonly Trained[];
}

const COUNTS = [5, 0, 7];

async function compare<A>(
  jax: JaxModule,
  backend: Compared["backend"],
  device: Device<A>,
  steps: number,
): Promise<Compared> {
  const options = { steps, rule: "SGD" } as const;
  jax.defaultDevice("wasm");
  const whole = await trainWhole(jax, MLP, { ...options, rows: rowsOf([12])[0] });
  jax.defaultDevice(backend);
  const rows = rowsOf(COUNTS);
  const ranks = await runRanks(
    COUNTS.length,
    (group) => trainRank(jax, MLP, { ...options, device, group, rows: rows[group.rank] }),
  );
  return { backend, whole, ranks };
}

export async function main(jax: JaxModule): Promise<readonly Compared[]> {
  const there = await jax.init("wasm", "webgpu");
  if (!there.includes("webgpu")) throw new Error(`jax-js has ${there} alone`);
  await using onHost = await wasmDevice();
  const wasm = await compare(jax, "wasm", onHost, 20);
  using onGpu = webgpuDevice(jax.getWebGPUDevice());
  // Compiling kernels is most of what a software adapter takes.
  const webgpu = await compare(jax, "webgpu", onGpu, 5);
  return [wasm, webgpu];
}
