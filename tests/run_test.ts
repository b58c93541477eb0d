import assert from "node:assert/strict";
import { register } from "./kit.ts";
import { exitCode, lastLine, summarize } from "./run.ts";
import { inTier, TIER, type Tier } from "./tier.ts";

Deno.test("a run's last line counts what it ran, and what stands for tests that it left out", () => {
  const summary = summarize(`
./tests/a_test.ts => one ... ok (1ms)
./tests/full/b_test.ts => webgpu: 391 tests left to the full tier ... \u001b[33mignored\u001b[0m (0ms)
./tests/full/c_test.ts => webgpu: 1 test left to the full tier ... ignored (0ms)
./tests/full/c_test.ts => Open MPI on two hosts: 2 tests left to the full tier ... ignored (0ms)
./tests/d_test.ts => webgpu: the device suite (no adapter) ... ignored (0ms)

ok | 1234 passed (2 steps) | 0 failed | 4 ignored (2m3s)
`);
  assert.equal(
    lastLine(summary),
    "1234 passed, 0 failed, 1 ignored; " +
      "394 left to deno task test:full: webgpu (392), Open MPI on two hosts (2)",
  );
  assert.deepEqual(summary.strayed, []);
});

Deno.test("a run that failed, or left nothing out, says so; a file that may not leave out is named", () => {
  const failed = summarize("FAILED | 3 passed | 2 failed (1s)\nerror: Test failed\n");
  assert.equal(lastLine(failed), "3 passed, 2 failed, 0 ignored");
  const { strayed } = summarize(
    "./tests/x_test.ts => x: 5 tests left to the full tier ... ignored",
  );
  assert.deepEqual(strayed, ["./tests/x_test.ts"]);
});

Deno.test("the tests of a kit of this run's tier are registered as the kit says", () => {
  const registered: string[] = [];
  const put = (tier: Tier) =>
    inTier(
      { name: tier, tier, register: (name) => void registered.push(name) },
      (kit) => register(kit, "its test", () => {}),
    );
  put("quick");
  put(TIER);
  assert.deepEqual(registered, ["quick: its test", `${TIER}: its test`]);
});

Deno.test("the task of the tests answers --help, and refuses what it does not know", async () => {
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", new URL("run.ts", import.meta.url).href, ...args],
      env: { NO_COLOR: "1" },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  };
  const help = await run("quick", "--help");
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^Usage: deno task test /);
  for (const args of [["slow"], ["full", "--watch"], ["quick", "--left-out"]]) {
    const { code, stdout, stderr } = await run(...args);
    assert.deepEqual([code, stdout], [2, ""], args.join(" "));
    assert.match(stderr, /^Cannot run /);
  }
});

Deno.test("a run that is ended by a signal counts as passed only after its last test, with none failed", () => {
  const over = "\u001b[32mok\u001b[0m | 3 passed | 0 failed (1s)\n";
  assert.equal(exitCode({ code: 134, signal: "SIGABRT", report: over }), 0);
  assert.equal(exitCode({ code: 134, signal: "SIGABRT", report: "a ... ok (1ms)\n" }), 134);
  assert.equal(
    exitCode({ code: 134, signal: "SIGABRT", report: "FAILED | 2 passed | 1 failed (1s)\n" }),
    134,
  );
  assert.equal(exitCode({ code: 1, signal: null, report: over }), 1);
});
