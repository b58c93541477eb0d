import { compile } from "../kernels/wasm/binary.ts";
import { normalArray } from "../tests/random.ts";
const memory = new WebAssembly.Memory({ initial: 1600, maximum: 65536 });
const k = (await WebAssembly.instantiate(await compile("simd128", "local"), { env: { memory } }))
  .exports as any;
const C = 128, N = 256, n = C * N;
const X = 1 << 20,
  DY = X + 4 * n + 832,
  REC = 8 << 20,
  WORK = 10 << 20,
  HIS = 7 << 20,
  OUT = 12 << 20;
const f = (at: number, v: Float32Array) => new Float32Array(memory.buffer, at, v.length).set(v);
f(X, normalArray(n, 1));
f(DY, normalArray(n, 2));
const best = (name: string, body: () => void, per = 20) => {
  let b = Infinity;
  for (let i = 0; i < 3000; i++) {
    const t = performance.now();
    for (let j = 0; j < per; j++) body();
    b = Math.min(b, (performance.now() - t) / per);
  }
  console.log(name.padEnd(24), (b * 1000).toFixed(2), "us");
};
const [inner, period] = [1, 128];
k.reduce(X, 0, 0, 0, 1, C, 1, period, 0, n, 0, REC + 8, REC + 8 + 16 * C, WORK);
best(
  "ordinary moments",
  () => k.reduce(X, 0, 0, 0, 1, C, 1, period, 0, n, 0, REC + 8, REC + 8 + 16 * C, WORK),
);
best("ordinary sums", () => k.reduce(X, DY, 0, 0, 1, C, 1, period, 0, n, HIS, REC, 0, WORK));
best("exact moments", () => k.reduceExactly(X, 0, 0, 0, C, 1, period, 0, n, 0, REC + 8, WORK));
new Float64Array(memory.buffer, REC, 1)[0] = 256;
const at = REC + 8 * (1 + 31 * C);
best("resolve moments", () => {
  new Float64Array(memory.buffer, at, 1)[0] = -1;
  k.resolveMoments(REC, C, WORK);
});
best("exact sums", () => k.reduceExactly(X, DY, 0, 0, C, 1, period, 0, n, HIS, REC, WORK));
best("resolve sums", () => k.resolveSums(REC, C, 0, OUT, WORK));
// rows
best(
  "rows [4,64,56,56]/.. 1024x32 moments",
  () => k.reduceExactly(X, 0, 0, 0, 32, 1024, 0, 0, n, 0, REC + 8, WORK),
);
best("rows sums", () => k.reduceExactly(X, DY, 0, 0, 32, 1024, 0, 0, n, HIS, REC, WORK));
best(
  "ordinary rows moments",
  () => k.reduce(X, 0, 0, 0, 0, 32, 1024, 0, 0, n, 0, REC + 8, REC + 8 + 16 * C, WORK),
);
best(
  "exact moments 1 row",
  () => k.reduceExactly(X, 0, 0, 0, C, 1, period, 0, 128, 0, REC + 8, WORK),
);
best(
  "exact moments 4 rows",
  () => k.reduceExactly(X, 0, 0, 0, C, 1, period, 0, 512, 0, REC + 8, WORK),
);
best("exact sums 1 row", () => k.reduceExactly(X, DY, 0, 0, C, 1, period, 0, 128, HIS, REC, WORK));
best("exact moments no row", () => k.reduceExactly(X, 0, 0, 0, C, 1, period, 0, 0, HIS, REC, WORK));
