/** A rank of the failure report under a launcher: leaves its process id, and what it saw, in a folder. */

import { mpiGroup } from "../../lib/groups/mpi.ts";
import { fail, type Plan, soak } from "./scenarios.ts";

const [folder, order] = Deno.args;
const { plan, soak: times }: { readonly plan?: Plan; readonly soak?: number } = JSON.parse(order);
const group = mpiGroup({ timeoutMs: plan?.timeoutMs ?? 60_000 });
const { rank, worldSize } = group;

function write(name: string, what: unknown): void {
  Deno.writeTextFileSync(`${folder}/part.${name}`, JSON.stringify(what));
  Deno.renameSync(`${folder}/part.${name}`, `${folder}/${name}`);
}

/** Waits until all that live have told what they saw, and not for ever: an abort ends them all. */
async function allHaveTold(): Promise<void> {
  const tellers = plan?.kind.startsWith("killed") ? worldSize - 1 : worldSize;
  for (const end = performance.now() + 3000; performance.now() < end;) {
    const told = [...Deno.readDirSync(folder)].filter(({ name }) => name.startsWith("outcome."));
    if (told.length >= tellers) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

write(`pid.${rank}`, Deno.pid);
write(`outcome.${rank}`, plan ? await fail(group, plan) : await soak(group, { times: times ?? 1 }));
await allHaveTold();
try {
  await group.close();
} catch {
  group.abort(1);
}
