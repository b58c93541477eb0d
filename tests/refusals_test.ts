/** Every value of a call that is spoiled is refused in a sentence of the library's, or is one of those that may stand there. */

import assert from "node:assert/strict";
import * as bn from "../mod.ts";
import { CALLS, device, put } from "./refusals.ts";

const freed = put();
device.free(freed.data);
const elsewhere = bn.tensor(bn.referenceDevice(), new Float32Array(24), [4, 2, 3]);
const short = device.upload(new Float32Array(1));

/** What comes instead, by its name. */
const WRONG: Readonly<Record<string, unknown>> = {
  ...{ undefined: undefined, null: null, NaN: NaN, Infinity: Infinity, "-1": -1, "1.5": 1.5 },
  ...{ text: "text", record: {}, list: [], true: true, function: () => 1 },
  ...{ promise: Promise.resolve({}), device, freed, "freed array": freed.data },
  ...{ elsewhere, "array elsewhere": elsewhere.data, short, smaller: put([3, 2, 3]) },
  ...{ half: bn.tensor(device, new Float32Array(24), [4, 2, 3], { dtype: "float16" }) },
  ...{ "half array": device.upload(new Float32Array(2), "float16"), numbers: new Float32Array(2) },
  ...{ "wrong lengths": Int32Array.of(5, -1, 0, 0), "bare tensor": { data: short } },
};

/** What may stand at the end of a path, beside what stood there. */
const FINE: readonly (readonly [path: RegExp, names: string])[] = [
  // What is left out, or null, where a record says so.
  [/ [1-5](\.\d)?$/, "undefined"],
  [/^syncBatchNorm\w+All 0(\.0\.options)?$/, "undefined null record list"],
  [/\.(activation|residuals?|weights|lengths|updateRunningStats|sums)(\.\d)?$/, "undefined"],
  [/\.(offset|scale|dtype|format|gradResidual|renorm|ghost|groups|timeoutMs)$/, "undefined"],
  [/\.(negativeSlope|maxValue|runningVariance|momentum)$/, "undefined"],
  [/\.(weight|bias|gradWeight|gradBias|dmean|dvariance|momentum)$/, "undefined null"],
  [/\.(residualFormat|processGroup|positives|count|output|state\.running\w+)$/, "null"],
  [/\.processGroup$/, "undefined text"],
  // Switches, and numbers that need not be whole.
  [/\.(donate|keepSums|scale|bias|affine|trackRunningStats|updateRunningStats)$/, "undefined true"],
  [/\.learns\.\w+$/, "true"],
  [/\.(eps|count|negativeSlope|maxValue|rmax|dmax|from|to|timeoutMs)$/, "1.5"],
  // Records all of whose fields may be missing, the device itself, and batches of another dtype.
  [/ \d$|\.(activation|options|modulation)$/, "record"],
  [/ 0$|\.device$/, "device"],
  [/ [01](\.\d)?$/, "half"],
  [/^syncBatchRenormForwardBlocking 1$/, "smaller"],
  [/^batchNormInfer by the batch 0\.running\w+$/, "null"],
  [/^resetRunningStats 1\.kind$/, "undefined"], // the state within it is one
  [/^(boundAt|momentumAt) 0$/, "null 1.5"],
  [/^addScaled \d$/, "1.5,-1,half array"],
  [/^tensor 1$|^stateFromHost 1\.\w+$/, "numbers"],
  [/^referenceDevice 0(\.exact)?$/, "undefined true"],
  [/^materializeLayer 1\.(state|lazy)$/, "null record"],
  [/^toArray 1$/, "smaller"],
  [/^(region|batch|runRanks) 1$|^fromAllGather 0$/, "function"],
  [/\.timeoutMs$/, "Infinity"],
  // What has no device cannot look at arrays: who uses them does.
  [
    /^(freeze|unfreeze|mapLayers|withParameters|convert\w+|revert\w+) .*\.(weight|bias|running\w+)$/,
    Object.keys(WRONG).filter((kind) => Object(WRONG[kind]) === WRONG[kind]).join(),
  ],
];

/** A sentence of the library's: what it cannot do, why, and what came. */
const SENTENCE =
  /^(Cannot (?!read prop|convert (a|object|undefined) |destructure|mix)[^:]+: |Rank \d failed before call)/;

/** Whether a value is taken as a whole: what lies in it is not the caller's to write. */
function isWhole(value: unknown): boolean {
  return typeof value !== "object" || value === null || ArrayBuffer.isView(value) ||
    device.owns(value) || "upload" in value || "allReduce" in value || "world" in value;
}

/** Paths of all values within a list of arguments; of a shape not its extents. */
function* pathsIn(value: unknown, path: readonly string[] = []): Generator<readonly string[]> {
  if (path.length > 0) yield path;
  if (isWhole(value) || path.at(-1) === "shape") return;
  for (const key of Object.keys(value as object)) {
    // Of a group's moments nobody reads it: what was saved has its own.
    if (key === "worldSize" && path.at(-1) === "moments") continue;
    yield* pathsIn((value as Readonly<Record<string, unknown>>)[key], [...path, key]);
  }
}

/** A copy with another value at the end of a path. */
function withAt(value: unknown, [key, ...rest]: readonly string[], other: unknown): unknown {
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<
    string,
    unknown
  >;
  copy[key] = rest.length > 0 ? withAt(copy[key], rest, other) : other;
  return copy;
}

for (const [name, argumentsOf] of Object.entries(CALLS)) {
  Deno.test(`${name}: every wrong value is refused in a sentence`, async () => {
    const call = bn[name.split(" ")[0] as keyof typeof bn] as (...all: unknown[]) => unknown;
    await call(...argumentsOf());
    const taken: string[] = [];
    for (const path of pathsIn(argumentsOf())) {
      const at = `${name} ${path.join(".")}`;
      const fine = FINE.flatMap(([of, names]) =>
        of.test(at) ? names.split(names.includes(",") ? "," : " ") : []
      );
      for (const [kind, wrong] of Object.entries(WRONG)) {
        const all = withAt(argumentsOf(), path, wrong) as unknown[];
        const error = await (async () => await call(...all))().then(() => null, (error) => error);
        if (error === null) {
          if (!fine.includes(kind)) taken.push(`${at} = ${kind}`);
          continue;
        }
        const cause = error.name === "CollectiveError" ? error.cause : error;
        for (const { message } of [error, cause]) {
          assert(SENTENCE.test(message), `${at} = ${kind}: ${message}`);
        }
      }
    }
    assert.deepEqual(taken, [], "what is taken in silence");
  });
}

/** What other tests spoil, by their files. */
const ELSEWHERE: Readonly<Record<string, readonly string[]>> = {
  "tests/suites/errors.ts": [
    "allReduceGradients",
    "assertReplicated",
    "broadcastState",
    "joinUneven",
  ],
  "tests/suites/tree_arithmetic.ts": ["allFinite", "mapArrays"],
  "tests/suites/ownership.ts": ["release"],
  "tests/fold_errors_test.ts": ["foldBatchNorm"],
  "tests/suites/models.ts": ["foldModel"],
  "tests/precise_test.ts": ["preciseStatistics"],
  "tests/watch_test.ts": ["watch", "historyTable", "healthSvg"],
  "tests/health_test.ts": ["healthTable"],
  "tests/moments_test.ts": ["combineMoments", "sum"],
  "tests/errors_test.ts": ["isCollectiveError", "isDeviceError"],
};

Deno.test("every public function is among the calls that are spoiled, or in another test", () => {
  const called = Object.keys(CALLS).map((name) => name.split(" ")[0]);
  const others = Object.values(ELSEWHERE).flat();
  const functions = Object.entries(bn).filter(([, value]) =>
    typeof value === "function" && !/^class/.test(String(value))
  );
  const missing = functions.map(([name]) => name).filter((name) =>
    !called.includes(name) && !others.includes(name)
  );
  assert.deepEqual(missing, []);
});
