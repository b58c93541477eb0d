/** The page of examples/browser as far as it needs no browser: its state, and what is made of it. */

import assert from "node:assert/strict";
import { firstLook } from "../examples/browser/page/first_look.ts";
import type { RunName, Told } from "../examples/browser/page/messages.ts";
import { columnsOf, wordsOf } from "../examples/browser/page/curves.ts";
import { pictureOf } from "../examples/browser/page/picture.ts";
import {
  planOf,
  problemOf,
  readSettings,
  type Settings,
  writeSettings,
} from "../examples/browser/page/settings.ts";
import {
  type Action,
  firstState,
  type Host,
  isBusy,
  next,
  type State,
} from "../examples/browser/page/state.ts";
import { drawPanel, symbols, ticks } from "../examples/browser/page/svg.ts";
import { normalized, statisticsOf } from "../examples/browser/page/values.ts";
import { powerOfTen, scientific, viewOf } from "../examples/browser/page/view.ts";
import { digits } from "./demo_kit.ts";

const USUAL: Settings = { replicas: 4, images: 2, epochs: 2, device: "auto" };
const HOST: Host = { isolated: true, secure: true, webgpu: "there" };

function after(state: State, ...actions: readonly Action[]): State {
  return actions.reduce(next, state);
}

function told(...messages: readonly Told[]): readonly Action[] {
  return messages.map((told) => ({ kind: "told", told }));
}

function stepped(run: RunName, step: number, value?: number): Told {
  const parameters = value === undefined ? {} : { parameters: Float32Array.of(1, value) };
  return { kind: "stepped", run, step, ms: 10, collectiveMs: 4, ...parameters };
}

Deno.test("the page: settings are read from any texts, and written so that they are read again", () => {
  const read = (query: string) => readSettings(new URLSearchParams(query));
  assert.deepEqual(read(""), USUAL);
  assert.deepEqual(read("replicas=9&images=0&epochs=1.5&device=gpu"), USUAL);
  assert.deepEqual(read("replicas=-1&images=1e1&epochs=&device=toString"), USUAL);
  const other: Settings = { replicas: 8, images: 16, epochs: 1, device: "webgpu" };
  assert.deepEqual(read(writeSettings(other)), other);
  assert.equal(problemOf({ ...USUAL, replicas: 2, images: 2 }), null);
  assert.match(
    problemOf({ ...USUAL, replicas: 3, images: 1 }) ?? "",
    /at least 4 images .* 3 × 1\./,
  );
  assert.equal(planOf(USUAL).steps, 360);
});

Deno.test("the page: what does not concern its state any more changes nothing", () => {
  const ready = firstState(USUAL, HOST);
  const late: Action[] = [
    ...told(stepped("sync", 1)),
    { kind: "end", phase: "done" },
    { kind: "fail", reason: "late" },
  ];
  for (const action of late) assert.equal(next(ready, action), ready, action.kind);
  const busy = next(ready, { kind: "start" });
  assert(isBusy(busy));
  assert.equal(next(busy, { kind: "set", settings: { ...USUAL, replicas: 2 } }), busy);
  assert.equal(next(busy, { kind: "start" }), busy);
  const few = firstState({ ...USUAL, replicas: 1 }, HOST);
  assert.equal(few.plan, null);
  assert.equal(next(few, { kind: "start" }), few);
  const { plan, look } = { plan: planOf(USUAL), look: { step: 0, features: [] } };
  assert.equal(next(ready, { kind: "look", plan, look }), ready, "a look at other settings");
});

Deno.test("the page: runs are held against one process, whichever is ahead", () => {
  const busy = next(firstState(USUAL, HOST), { kind: "start" });
  const ahead = after(
    busy,
    ...told(stepped("sync", 1, 2), stepped("local", 1, 5), stepped("sync", 2, NaN)),
  );
  assert.deepEqual(ahead.runs.sync.distances, []);
  assert.equal(ahead.runs.sync.snapshots.size, 2);
  const { runs } = after(ahead, ...told(stepped("one", 1, 2.5), stepped("one", 2, 2)));
  assert.deepEqual(runs.sync.distances, [{ step: 1, largest: 0.5 }, { step: 2, largest: NaN }]);
  assert.deepEqual(runs.local.distances, [{ step: 1, largest: 2.5 }]);
  assert.deepEqual([runs.sync.snapshots.size, runs.one.snapshots.size], [0, 2]);
  assert.deepEqual(columnsOf("distance", { runs }), [[1, 2], [0.5, NaN], [2.5, null]]);
});

Deno.test("the page: a look is shown when all replicas have told their part, in the order of ranks", () => {
  const two: Settings = { ...USUAL, replicas: 2 };
  const part = (rank: number, step: number): Told => ({
    ...{ kind: "looked", rank, step, features: [Float32Array.of(rank)] },
  });
  const busy = next(firstState(two, HOST), { kind: "start" });
  const half = after(busy, ...told(part(1, 1), part(1, 2)));
  assert.equal(half.look, null);
  const whole = after(half, ...told(part(0, 1)));
  assert.deepEqual(whole.look, {
    step: 1,
    features: [[Float32Array.of(0)], [Float32Array.of(1)]],
  });
  assert.equal(whole.parts.length, 1, "that of the next look");
});

Deno.test("the page: syncbn puts every value where one process has it, local batch norm does not", async () => {
  for (const [block, values] of [[0, 128], [1, 32], [2, 2]] as const) {
    const state = firstState(USUAL, HOST);
    assert(state.plan);
    const look = await firstLook(state.plan, digits);
    const picture = pictureOf(
      after(
        state,
        { kind: "look", plan: state.plan, look },
        { kind: "choose", channel: { block, channel: 3 } },
      ),
    );
    assert(picture);
    const [given, local, sync] = picture.panels;
    assert.deepEqual(given.rows.map((row) => row.values.length), [
      ...[values, values, values, values],
      4 * values,
    ]);
    for (const { values, ghosts } of sync.rows) assert.deepEqual(values, ghosts);
    for (const { values, ghosts } of local.rows) assert.notDeepEqual(values, ghosts);
    const all = given.rows[4].values;
    const { mean, deviation } = statisticsOf(all);
    const expected = all.map((value) => (value - mean) / Math.sqrt(deviation ** 2 + 1e-2));
    assert.deepEqual(sync.rows[4].values, expected);
    for (const { rows, domain: [low, high] } of picture.panels) {
      for (const value of rows.flatMap(({ values }) => values)) {
        assert(low < value && value < high);
      }
    }
    assert.equal(
      given.rows[0].images === null,
      block < 2,
      "images are drawn where each has a value",
    );
    for (const panel of picture.panels) {
      const drawn = drawPanel(panel);
      assert.doesNotMatch(drawn, /NaN|undefined|Infinity/);
      assert.match(drawn, /^<svg [^>]*role="img" aria-label="[^"]+">.*<\/svg>$/);
    }
    const drawn = symbols(picture.images, digits.training);
    assert.equal(drawn.match(/<symbol /g)?.length, 8);
  }
});

Deno.test("the page: a replica without a spread, or without images, is drawn all the same", () => {
  assert.deepEqual(normalized([3, 3], statisticsOf([3, 3])), [0, 0]);
  const settings: Settings = { ...USUAL, replicas: 4, images: 1 };
  const state = firstState(settings, HOST);
  assert(state.plan);
  const block = (value: number) => new Float32Array(64).fill(value);
  const features = [block(1), block(1), block(2), new Float32Array(0)]
    .map((dense) => [new Float32Array(0), new Float32Array(0), dense]);
  const look: Action = { kind: "look", plan: state.plan, look: { step: 0, features } };
  const picture = pictureOf(next(state, look));
  assert(picture);
  for (const panel of picture.panels) {
    assert.doesNotMatch(drawPanel(panel), /="[^"]*(NaN|Infinity)/);
  }
});

Deno.test("the page: what it says of every phase", () => {
  const ready = firstState(USUAL, HOST);
  const busy = next(ready, { kind: "start" });
  const training = after(
    busy,
    ...told(
      { kind: "opened", device: "Wasm SIMD, as there is no adapter" },
      { kind: "opened", device: "Wasm SIMD, as there is no adapter" },
      ...(["one", "sync", "local", "none"] as const).map((run) => stepped(run, 7, 2)),
    ),
  );
  const says = (state: State) => viewOf(state).status;
  assert.deepEqual([ready, busy, training].map(says), [
    "Ready: press Train.",
    "Starting 5 workers …",
    "Training …",
  ]);
  assert.equal(viewOf(training).device, "2 × Wasm SIMD, as there is no adapter.");
  assert.equal(viewOf(training).progress, "step 7 of 360");
  assert.deepEqual(viewOf(training).runs.sync, {
    ...{ accuracy: "–", distance: "0", steps: "100.0", collective: "4.00 ms" },
  });
  assert.equal(
    says(next(training, { kind: "end", phase: "stopped" })),
    "Stopped at step 7. Train begins anew.",
  );
  const failed = viewOf(next(training, { kind: "fail", reason: "Rank 1 is gone.." }));
  assert.equal(failed.status, "The training has failed: Rank 1 is gone. Train begins anew.");
  assert.deepEqual([failed.button, failed.isProblem], ["Train", true]);
  assert.match(
    says(next(training, { kind: "end", phase: "done" })),
    /^Done: syncbn has ended 0 from one/,
  );

  const alone = viewOf(firstState(USUAL, { isolated: false, secure: false, webgpu: "none" }));
  assert.equal(alone.notes.length, 2);
  assert.match(alone.notes[0], /^Browsers give WebGPU to pages by https alone/);
  assert.match(alone.notes[1], /not isolated/);
  const noGpu = viewOf(firstState(USUAL, { ...HOST, webgpu: "noAdapter" }));
  assert.match(noGpu.notes.join(), /^WebGPU finds no GPU here/);
  const none = viewOf(firstState({ ...USUAL, replicas: 1 }, HOST));
  assert.deepEqual([none.canPress, none.isProblem], [false, true]);
  assert.match(viewOf(firstState({ ...USUAL, images: 1 }, HOST)).runs.local.accuracy, /impossible/);
  assert.match(wordsOf("accuracy", columnsOf("accuracy", ready)), /There are no curves yet\.$/);
});

Deno.test("the page: numbers are written as people do", () => {
  assert.deepEqual([1.23e-7, 0, 42, NaN].map(scientific), [
    "1.2 × 10⁻⁷",
    "0",
    "4.2 × 10¹",
    "not a number",
  ]);
  assert.deepEqual([-9, 0, 12].map(powerOfTen), ["10⁻⁹", "10⁰", "10¹²"]);
  for (const [low, high] of [[-1, 1], [0, 0.003], [-7, 120], [3, 3.5]] as const) {
    const marks = ticks([low, high]);
    assert(marks.length >= 2 && marks.length <= 6, `${marks}`);
    assert(marks.every((mark) => mark >= low && mark <= high), `${marks}`);
  }
});
