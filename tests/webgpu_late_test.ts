/** What comes late from a GPU: readbacks that are looked for now and then, a loss that is told after its consequences. */

import assert from "node:assert/strict";
import { createFailures } from "../kernels/webgpu/failures.ts";
import { createNudge } from "../kernels/webgpu/nudge.ts";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** A queue that keeps the times at which it was nudged. */
function fakeQueue() {
  const nudges: number[] = [];
  const start = performance.now();
  const submit = (commands: readonly unknown[]) => {
    assert.deepEqual(commands, []);
    nudges.push(performance.now() - start);
  };
  return { queue: { submit } as unknown as GPUQueue, nudges };
}

Deno.test("a readback that takes long is nudged until it is there, a short one is not", async () => {
  const { queue, nudges } = fakeQueue();
  const nudged = createNudge(queue);
  assert.equal(await nudged(Promise.resolve(7)), 7);
  await pause(20);
  assert.deepEqual(nudges, []);
  await Promise.all([nudged(pause(60)), nudged(pause(40)), nudged(pause(5))]);
  const count = nudges.length;
  assert(count >= 1 && nudges[0] >= 29, `${nudges}`);
  await pause(20);
  assert.equal(nudges.length, count);
});

Deno.test("the longer a readback takes, the more seldom it is nudged", async () => {
  const { queue, nudges } = fakeQueue();
  await createNudge(queue)(pause(300));
  // 4 ms apart at first, which would be 70; a quarter of the time so far later on.
  assert(nudges.length >= 2 && nudges.length <= 20, `${nudges}`);
});

Deno.test("a readback that fails is nudged no more", async () => {
  const { queue, nudges } = fakeQueue();
  const failing = pause(15).then(() => Promise.reject(new Error("no")));
  await assert.rejects(createNudge(queue)(failing), /no/);
  const count = nudges.length;
  await pause(20);
  assert.equal(nudges.length, count);
});

Deno.test("what a scope reports of a device that is about to say that it is lost is no bug of ours", async () => {
  const lost = pause(60).then(() => ({ reason: "destroyed", message: "gone" }));
  const popErrorScope = () => Promise.resolve({ message: "the buffer is invalid" });
  const gpuDevice = { lost, pushErrorScope: () => {}, popErrorScope };
  const failures = createFailures(gpuDevice as unknown as GPUDevice);
  failures.guard("upload an array", [], () => {});
  await failures.reported();
  assert.throws(failures.check, { code: "lost" });
});

Deno.test("a map that fails before its device says that it is lost is the loss's consequence", async () => {
  const lost = pause(60).then(() => ({ reason: "destroyed", message: "gone" }));
  const failures = createFailures({ lost } as unknown as GPUDevice);
  const error = await failures.explain(new Error("the map was rejected"));
  assert.equal(error.code, "lost");
  assert.throws(failures.check, (thrown) => thrown === error);
});
