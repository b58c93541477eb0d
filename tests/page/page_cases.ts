/** The page "k replicas equal one", used as a person uses it, in Chromium: part of `deno task test:page`. */

import assert from "node:assert/strict";
import { assertAccessible, assertDrawn, gone, lose, trains } from "./checks.ts";
import { asPerson, DESKTOP, type Person } from "./person.ts";
import { ignore, served, SHORT } from "./served.ts";

const OUT = "out/page-test";
const PHONE = { width: 360, height: 740, dark: false };

function test(name: string, body: (person: Person, address: string) => Promise<void>): void {
  Deno.test({
    name: `page: ${name}`,
    ignore,
    fn: () => served((address) => asPerson((person) => body(person, address))),
  });
}

test(
  "it opens on the picture, and its controls do what they say by keyboard alone",
  async (person, address) => {
    await person.open(address);
    assert.match(await person.text("status"), /^Ready/);
    assert.match(await person.text("moment"), /^before training, 4 × 2 images$/);
    const label = (panel: string) =>
      person.value<string>(
        `document.querySelector("#panel-${panel} svg").getAttribute("aria-label")`,
      );
    const given = await label("given");
    assert.match(given, /^What comes in\. Replica 1 sees mean .* Replica 4 sees .* All together/);
    assert.match(await label("local"), /up to [1-9]\d*\.\d\d|0\.[1-9]\d from where one process/);
    const moved = (panel: string) =>
      person.value<number>(`(() => {
      const places = (name) => [...document.querySelectorAll("#panel-${panel} ." + name)]
        .map(({ style }) => style.transform);
      const [marks, ghosts] = [places("mark"), places("ghost")];
      return marks.filter((place, i) => place !== ghosts[i]).length;
    })()`);
    assert.deepEqual([await moved("local") > 8, await moved("sync")], [true, 0]);

    // By Tab from the top, in the order in which they stand there.
    const order = ["block", "channel", "replicas", "images", "epochs", "device", "train"];
    for (const id of order) {
      await person.press("Tab");
      assert.equal(await person.focused(), id);
      if (id === "channel") {
        await person.press("ArrowRight", 2);
        await person.sees("channel-value", /^3 of 64$/);
        assert.notEqual(await label("given"), given);
      }
      if (id === "replicas") {
        await person.press("Home");
        await person.press("ArrowRight");
        await person.sees("replicas-value", /^2$/);
      }
      if (id === "images") {
        await person.press("Home");
        await person.sees("status", /^All replicas together need at least 4 images .* 2 × 1\./);
        assert(await person.value(`document.getElementById("train").disabled`));
        await person.press("ArrowRight", 3);
        await person.sees("moment", /, 2 × 4 images$/);
        await person.sees("status", /^Ready/);
      }
    }
    assert.match(
      await person.value("location.search"),
      /^\?replicas=2&images=4&epochs=2&device=auto$/,
    );
    await person.press("Enter");
    await trains(person);
    assert.equal(await person.text("train"), "Stop");
    assert.equal(await person.focused(), "train");
    assert.match(await person.text("host-device"), /^3 × Wasm SIMD .*, as the adapter is software/);
  },
);

test(
  "four curves grow; syncbn ends on one process, local batch norm does not; light, dark, narrow",
  async (person, address) => {
    await person.open(`${address}?${SHORT}`);
    await person.click("train");
    await trains(person);
    await person.resize(PHONE);
    await person.sees("status", /^Done/);
    for (const run of ["one", "sync", "local", "none"]) {
      assert.match(await person.text(`${run}-accuracy`), /^\d\d\.\d %$/, run);
      assert(Number(await person.text(`${run}-steps`)) > 0, run);
    }
    assert.match(await person.text("sync-collective"), /^\d+\.\d\d ms$/);
    assert.equal(await person.text("sync-accuracy"), await person.text("one-accuracy"));
    assert.match(await person.text("sync-distance"), /^\d\.\d × 10⁻[⁶⁷⁸]$/);
    assert.match(await person.text("local-distance"), /^\d\.\d × 10⁻[¹²]$/);
    assert.match(await person.text("progress-text"), /^step (\d+) of \1$/);
    assert.match(await person.text("moment"), /^after step 45, the same 2 × 16 images$/);
    const words = (chart: string) =>
      person.value<string>(`document.getElementById("${chart}").getAttribute("aria-label")`);
    assert.match(
      await words("accuracy"),
      /one process \d.*, syncbn \d.*, local batch norm \d.*, no norm \d/,
    );
    assert.match(await words("distance"), /syncbn \d\.\de-[678], local batch norm \d\.\de-[12]\.$/);

    await Deno.mkdir(OUT, { recursive: true });
    for (const [device, size] of [["phone", PHONE], ["desktop", DESKTOP]] as const) {
      for (const dark of [false, true]) {
        await person.resize({ ...size, dark });
        const named = `${device}-${dark ? "dark" : "light"}`;
        const wide = await person.value<number>("document.documentElement.scrollWidth");
        assert(wide <= size.width, `${named}: the page is ${wide} wide`);
        for (const chart of ["accuracy", "distance"]) {
          await assertDrawn(person, chart, `${named}: ${chart}`);
        }
        await assertAccessible(person, named);
        await person.screenshot(`${OUT}/${named}.png`);
      }
    }
  },
);

test(
  "it stops, trains anew, and a reload in the middle leaves nothing behind",
  async (person, address) => {
    await person.open(`${address}?replicas=3&images=2&epochs=1`);
    await person.click("train");
    await trains(person);
    assert.equal(person.workers().length, 4);
    await person.press("Enter");
    await person.sees("status", /^Stopped at step \d+\. Train begins anew\.$/);
    await gone(person);
    assert.equal(await person.text("train"), "Train");
    assert(await person.value(`!document.getElementById("replicas").disabled`));

    await person.press("Enter");
    await trains(person);
    assert.equal(person.workers().length, 4);
    await person.reload();
    await gone(person);
    assert.match(await person.text("status"), /^Ready/);
    assert.equal(await person.text("replicas-value"), "3");
    assert.equal(await person.text("sync-accuracy"), "–");

    // With one image per replica there is no local batch norm.
    await person.open(`${address}?replicas=8&images=1&epochs=1`);
    assert.match(await person.text("local-accuracy"), /^impossible: one value per channel$/);
    await person.click("train");
    await trains(person);
    assert.equal(await person.text("local-steps"), "–");
  },
);

test(
  "a worker that is killed ends the training with its reason, and the next one trains",
  async (person, address) => {
    await person.open(`${address}?${SHORT}`);
    await person.click("train");
    await trains(person);
    const [victim] = person.workers().slice(-1);
    await victim.call("Runtime.evaluate", { expression: "close()" });
    const said = await person.sees("status", /^The training has failed/);
    assert.match(
      said,
      /: Rank \d closed its worker before its body had ended\. Train begins anew\.$/,
    );
    assert(await person.value(`document.getElementById("status").className === "problem"`));
    await gone(person);
    await person.click("train");
    await trains(person);
  },
);

test("a GPU that is lost ends the training with its reason", async (person, address) => {
  await person.open(`${address}?replicas=1&images=4&epochs=1&device=webgpu`);
  await person.click("train");
  await person.sees("host-device", /^2 × WebGPU .*, as you chose/);
  // The first to be lost ends the others, which then answer nothing.
  await Promise.allSettled(person.workers().map(lose));
  const said = await person.sees("status", /^The training has failed/);
  assert.match(said, /lost/);
});
