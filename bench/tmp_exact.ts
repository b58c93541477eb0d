import * as bn from "../mod.ts";
import { wasmDevice } from "../kernels/wasm_device.ts";
import { normalArray } from "../tests/random.ts";
const plain = await wasmDevice(), exact = await wasmDevice({ exact: true });
const median = (v: number[]) => v.toSorted((a, b) => a - b)[v.length >> 1];
const shapes: [number[], bn.Format][] = [
  [[32, 64, 56, 56], "channelsFirst"],
  [[256, 128], "channelsFirst"],
  [[32, 256, 14, 14], "channelsFirst"],
  [[32, 64, 56, 56], "channelsLast"],
  [[32, 2048, 7, 7], "channelsFirst"],
];
const only = Deno.args[0];
for (
  const [shape, format] of shapes.slice(
    only === "s" ? 1 : 0,
    only === "s" ? 2 : only ? Number(only) : 9,
  )
) {
  const n = shape.reduce((a, b) => a * b, 1);
  const xs = normalArray(n, 1), dys = normalArray(n, 2);
  const make = (d: any) => {
    const x = bn.tensor(d, xs, shape, { format }), dy = bn.tensor(d, dys, shape, { format });
    const state = bn.initBatchNorm(d, shape[1]);
    return {
      fwd: () => {
        const f = bn.batchNormForward(state, x, { device: d }) as any;
        d.free(f.output.data, f.moments.data, f.state.runningMean, f.state.runningVar);
      },
      step: () => {
        const f = bn.batchNormForward(state, x, { device: d }) as any;
        const b = bn.batchNormBackward(f.saved, dy, { device: d }) as any;
        d.free(
          f.output.data,
          f.moments.data,
          f.state.runningMean,
          f.state.runningVar,
          b.gradInput.data,
          b.gradWeight,
          b.gradBias,
        );
      },
      moments: () => {
        d.free(d.moments({ input: x }));
      },
      sums: (() => {
        const m = d.moments({ input: x });
        return () =>
          d.free(
            d.gradientSums({
              input: x,
              gradOutput: dy,
              statistics: { source: "batch", moments: m },
            }),
          );
      })(),
      norm: (() => {
        const m = d.moments({ input: x });
        return () =>
          d.free(
            d.normalize({ input: x, affine: state, statistics: { source: "batch", moments: m } }),
          );
      })(),
    } as Record<string, () => void>;
  };
  if (Deno.args[1]) {
    const d = exact as any;
    const m = make(exact);
    for (let i = 0; i < 3000; i++) m.fwd();
  }
  const [a, b] = [make(plain), make(exact)];
  const reps = Math.max(1, Math.round(2e6 / n));
  for (const what of ["moments", "sums", "norm", "fwd", "step"]) {
    const t: number[][] = [[], []];
    for (let i = 0; i < 150; i++) {
      [a, b].forEach((m, k) => {
        const s = performance.now();
        for (let r = 0; r < reps; r++) m[what]();
        if (i > 5) t[k].push((performance.now() - s) / reps);
      });
    }
    const [p, e] = t.map((v) => v.toSorted((a, b) => a - b)[2]);
    console.log(
      `[${shape}] ${format} ${what}: ${p.toFixed(4)} ${e.toFixed(4)} ms, ${(e / p).toFixed(2)}x`,
    );
  }
}
