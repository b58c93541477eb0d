/** What the tests look at beside texts: pixels, what axe finds, workers that are left. */

import assert from "node:assert/strict";
import type { Session } from "./devtools.ts";
import { PATIENCE_MS, type Person } from "./person.ts";

// A development dependency that the project's own lock does not name.
const { default: axe } = await import("npm:axe-core@4.14.1" as string);

/** Waits until a training that was just begun has taken its first steps. */
export async function trains(person: Person): Promise<void> {
  await person.sees("status", /^Training …$/);
  await person.sees("progress-text", /^step [1-9]/);
}

/** Waits until no worker runs. */
export async function gone(person: Person): Promise<void> {
  // One that waits for a software GPU ends when that has done what it was given.
  for (const until = Date.now() + PATIENCE_MS; person.workers().length > 0;) {
    assert(Date.now() < until, `${person.workers().length} workers are left`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Ends every GPUDevice of a worker, as a driver that crashes does. */
export async function lose(worker: Session): Promise<void> {
  const { result } = await worker.call("Runtime.evaluate", { expression: "GPUDevice.prototype" });
  const { objects } = await worker.call("Runtime.queryObjects", {
    prototypeObjectId: result.objectId,
  });
  await worker.call("Runtime.callFunctionOn", {
    objectId: objects.objectId,
    functionDeclaration: "function () { for (const device of this) device.destroy(); }",
  });
}

/** Fails unless a chart has pixels of the colour that syncbn has. */
export async function assertDrawn(person: Person, chart: string, what: string): Promise<void> {
  const pixels = await person.value<number>(`(() => {
    const canvas = document.querySelector("#${chart} canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const probe = document.createElement("i");
    probe.style.color = "var(--sync)";
    document.body.append(probe);
    const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    let found = 0;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) found++;
    }
    return found;
  })()`);
  assert(pixels > 100, `${what} has ${pixels} pixels of syncbn's colour`);
}

/** Fails where axe finds a violation. */
export async function assertAccessible(person: Person, what: string): Promise<void> {
  await person.value(`${axe.source}; 0`);
  const found = await person.value<{ id: string; nodes: { html: string }[] }[]>(
    "axe.run().then(({ violations }) => violations)",
  );
  const told = found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(told, [], what);
}
