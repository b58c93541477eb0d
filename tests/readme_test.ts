import assert from "node:assert/strict";
import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "../mod.ts";

const root = new URL("../", import.meta.url);

Deno.test("the README's examples run as printed, with no permission, and print what they say", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  const device = referenceDevice();
  const whole = tensor(device, [1, 2, 3, 4, 5, 6], [6, 1]);
  const { output } = batchNormForward(initBatchNorm(device, 1), whole, { device });
  const expected = [[...await toArray(device, output)], 1, undefined, undefined];
  assert.equal(examples.length, expected.length);
  for (const [i, code] of examples.entries()) {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--check", "--ext=ts", "-"],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(code));
    await writer.close();
    const { code: exitCode, stdout, stderr } = await child.output();
    const text = new TextDecoder();
    const complaints = text.decode(stderr);
    assert.equal(exitCode, 0, complaints);
    assert.doesNotMatch(complaints, /assertion/i);
    const printed = text.decode(stdout).trim();
    assert.deepEqual(printed === "" ? undefined : JSON.parse(printed), expected[i]);
  }
});

Deno.test("the README's step beside kernels of one's own is that of the whole program", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const program = await Deno.readTextFile(new URL("examples/own_kernels.ts", root));
  const [, step] = /^```ts ignore\n(launch\(.*?)^```$/ms.exec(readme) ?? [];
  assert(step);
  const lines = (text: string) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  assert(lines(step).length <= 10);
  assert(lines(program).join("\n").includes(lines(step).join("\n")));
  assert.match(readme, new RegExp(`${program.trimEnd().split("\n").length} lines`));
});
