import assert from "node:assert/strict";
import {
  batchNormForward,
  type Device,
  initBatchNorm,
  type LocalForward,
  type ProcessGroup,
  type ReduceGroup,
  type ReferenceArray,
  referenceDevice,
  syncBatchNormForward,
  type Tensor,
  tensor,
} from "../mod.ts";

/** An array of some other kind of device, as a WebGPU buffer would be. */
interface OtherArray {
  readonly device: "other";
}

/** Never called: it only has to compile, and its marked lines must not. */
export function compileTime(other: Device<OtherArray>, group: ProcessGroup): void {
  const device = referenceDevice();
  const state = initBatchNorm(device, 2);
  const x: Tensor<ReferenceArray> = tensor(device, [1, 2], [1, 2]);
  // @ts-expect-error A tensor of one kind of device on another.
  batchNormForward(state, x, { device: other });
  // @ts-expect-error A state of one kind of device with a tensor of another.
  batchNormForward(initBatchNorm(other, 2), x, { device });
  // @ts-expect-error A function that cannot communicate takes no group.
  batchNormForward(state, x, { device, group });
  // @ts-expect-error A synchronised function needs one.
  syncBatchNormForward(state, x, { device });
  // @ts-expect-error States are immutable.
  state.eps = 1;
  // @ts-expect-error Tensors are immutable.
  x.shape[0] = 2;
  const minimal: ReduceGroup = { worldSize: 2, allReduce: group.allReduce };
  syncBatchNormForward(state, x, { device, group: minimal });
  const local: LocalForward<ReferenceArray> = batchNormForward(state, x, { device });
  // @ts-expect-error A local forward is no promise.
  local.then();
}

Deno.test("devices, groups and residuals that do not fit do not compile", async () => {
  // Each marked line above must be an error of its own: without the marks the compiler finds exactly that many.
  const source = await Deno.readTextFile(new URL(import.meta.url));
  const mark = /^ *\/\/ @ts-expect-error.*\n/gm;
  const marks = source.match(mark)?.length ?? 0;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    const library = new URL("../mod.ts", import.meta.url).href;
    await Deno.writeTextFile(
      file,
      source.replace(mark, "").replaceAll('"../mod.ts"', `"${library}"`),
    );
    const { stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--no-lock", "--no-config", file],
      env: { NO_COLOR: "1" },
    }).output();
    const errors = new TextDecoder().decode(stderr).match(/^TS\d+ \[ERROR\]/gm) ?? [];
    assert.equal(errors.length, marks);
    assert(marks >= 7);
  } finally {
    await Deno.remove(file);
  }
});
