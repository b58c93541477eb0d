/** The page "k replicas equal one", used as a person uses it, in Chromium: `deno task test:page`. */

import assert from "node:assert/strict";
import { buildPage } from "../../examples/browser/build.ts";
import { ISOLATING, serveFiles } from "../../examples/browser/serve.ts";
import { hasBrowser } from "../browser/browsers.ts";
import { asPerson, DESKTOP, type Person } from "./person.ts";

// A development dependency that the project's own lock does not name.
const { default: axe } = await import("npm:axe-core@4.14.1" as string);
const ignore = !await hasBrowser("chromium");
const OUT = "out/page-test";
const PHONE = { width: 360, height: 740, dark: false };
/** 45 steps. */
const SHORT = "replicas=2&images=16&epochs=1";

const folder = await Deno.makeTempDir({ prefix: "syncbn_page_test_" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
const names = ignore ? [] : await buildPage(folder);

/** Serves the built page, as a host would that sends these headers. */
async function served(
  body: (address: string) => Promise<void>,
  { files = names, headers = ISOLATING as Record<string, string> } = {},
): Promise<void> {
  const server = serveFiles(folder, files, 0, headers);
  try {
    await body(`http://127.0.0.1:${server.addr.port}/`);
  } finally {
    await server.shutdown();
  }
}

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
    await person.sees("progress-text", /^step [1-9]/);
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
    await person.sees("progress-text", /^step [1-9]/);
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
    await person.sees("progress-text", /^step [1-9]/);
    assert.equal(person.workers().length, 4);
    await person.press("Enter");
    await person.sees("status", /^Stopped at step \d+\. Train begins anew\.$/);
    await gone(person);
    assert.equal(await person.text("train"), "Train");
    assert(await person.value(`!document.getElementById("replicas").disabled`));

    await person.press("Enter");
    await person.sees("progress-text", /^step [1-9]/);
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
    await person.sees("progress-text", /^step [1-9]/);
    assert.equal(await person.text("local-steps"), "–");
  },
);

test(
  "a worker that is killed ends the training with its reason, and the next one trains",
  async (person, address) => {
    await person.open(`${address}?${SHORT}`);
    await person.click("train");
    await person.sees("progress-text", /^step [1-9]/);
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
    await person.sees("progress-text", /^step [1-9]/);
  },
);

test("a GPU that is lost ends the training with its reason", async (person, address) => {
  await person.open(`${address}?replicas=1&images=4&epochs=1&device=webgpu`);
  await person.click("train");
  await person.sees("host-device", /^2 × WebGPU .*, as you chose/);
  for (const worker of person.workers()) await lose(worker);
  const said = await person.sees("status", /^The training has failed/);
  assert.match(said, /lost/);
  await gone(person);
});

Deno.test({
  name: "page: a host that sends no headers will do, as a service worker adds them",
  ignore,
  fn: () =>
    served((address) =>
      asPerson(async (person) => {
        await person.open(address);
        assert.equal(await person.value("crossOriginIsolated"), true);
        assert.equal(await person.value(`document.getElementById("notes").hidden`), true);
        await person.click("train");
        await person.sees("progress-text", /^step [1-9]/);
      }), { headers: {} }),
});

Deno.test({
  name:
    "page: by plain http there is no WebGPU and no isolation: it says so, and trains by messages",
  ignore,
  fn: () =>
    served(async (address) => {
      const { port } = new URL(address);
      const there = `http://somewhere.test:${port}/`;
      await asPerson(async (person) => {
        await person.open(`${there}?${SHORT}`);
        assert.deepEqual(await person.value("[isSecureContext, crossOriginIsolated]"), [
          false,
          false,
        ]);
        const notes = await person.text("notes");
        assert.match(notes, /^Browsers give WebGPU to pages by https alone, .*, by Wasm SIMD\./);
        assert.match(notes, /This page is not isolated .* send each other messages/);
        await person.click("train");
        await person.sees("sync-distance", /^\d\.\d × 10⁻[⁶⁷⁸]$/);
        assert.match(
          await person.text("host-device"),
          /^3 × Wasm SIMD .*, as this runtime has no WebGPU\.$/,
        );

        await person.open(`${there}?${SHORT}&device=webgpu`);
        await person.click("train");
        await person.sees("status", /failed: WebGPU must find an adapter: there is none\. Choose/);
      }, ["--host-resolver-rules=MAP somewhere.test 127.0.0.1"]);
    }, { headers: {} }),
});

/** Waits until no worker runs. */
async function gone(person: Person): Promise<void> {
  for (const until = Date.now() + 10_000; person.workers().length > 0;) {
    assert(Date.now() < until, `${person.workers().length} workers are left`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Ends every GPUDevice of a worker, as a driver that crashes does. */
async function lose(worker: Person["page"]): Promise<void> {
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
async function assertDrawn(person: Person, chart: string, what: string): Promise<void> {
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
async function assertAccessible(person: Person, what: string): Promise<void> {
  await person.value(`${axe.source}; 0`);
  const found = await person.value<{ id: string; nodes: { html: string }[] }[]>(
    "axe.run().then(({ violations }) => violations)",
  );
  const told = found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(told, [], what);
}
