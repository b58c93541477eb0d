/**
 * `deno task bench:adapters`: what the adapter for TensorFlow.js takes beside TensorFlow.js's own batch norm layer, and a
 * training step of a small CNN on one worker and on two.
 */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { convertSyncBatchNorm, replicate, syncBatchNorm } from "../../lib/adapters/tfjs.ts";
import { inProcessGroup, type ProcessGroup } from "../../mod.ts";
import { commandLine } from "../command.ts";
import { median, workTimes } from "../measure.ts";
import { workers } from "../ranks.ts";
import {
  captionOf,
  figure,
  list,
  NOBODY,
  paragraph,
  section,
  table,
  writeSection,
} from "../report.ts";
import { checked, loadTf, type Tf, type Variable } from "./tfjs.ts";

interface Options {
  readonly rounds: number;
  readonly shapes: readonly (readonly number[])[];
  /** Images of a training step over all ranks, and their extent. */
  readonly batch: number;
  readonly image: number;
}

const USUAL: Options = {
  ...{ rounds: 9, batch: 32, image: 16 },
  shapes: [[256, 128], [32, 14, 14, 64], [8, 56, 56, 64]],
};
const QUICK: Options = { rounds: 1, batch: 4, image: 8, shapes: [[16, 8], [2, 4, 4, 8]] };
const BACKENDS = ["cpu", "wasm"] as const;
const EPSILON = 1e-3;

/** What forward and backward of one batch norm took, in ms. */
interface LayerTimes {
  /** With a loss, the sum of y times dy, within `tf.variableGrads`. */
  readonly withLoss: Compared;
  /** Of the layer alone, whose gradients start from dy. */
  readonly alone: Compared;
  /** Two copies of the batch: no layer does less than read and write it once in each direction. */
  readonly copies: number;
}

interface Compared {
  readonly theirs: number;
  readonly ours: number;
}

/** Times a batch norm over channels last: tfjs's own layer, and ours with Wasm kernels. */
async function timeLayer(tf: Tf, shape: readonly number[], rounds: number): Promise<LayerTimes> {
  await using device = await wasmDevice();
  const channels = shape[shape.length - 1];
  const layer = tf.layers.batchNormalization({ axis: -1, epsilon: EPSILON });
  layer.build(shape);
  const x = tf.variable(tf.randomNormal(shape, 0.5, 2, "float32", 1));
  const dy = tf.randomNormal(shape, 0, 1, "float32", 2);
  const [gamma, beta] = [tf.ones([channels]), tf.zeros([channels])].map((own) => tf.variable(own));
  const [group] = inProcessGroup(1);
  const options = { axis: -1, epsilon: EPSILON, device };
  const ways = [
    {
      run: (x: Variable) => layer.apply(x, { training: true }),
      parameters: layer.trainableWeights.map((own) => own.read()),
    },
    {
      run: (x: Variable) => syncBatchNorm(tf, x, { gamma, beta }, group, options).y,
      parameters: [gamma, beta],
    },
  ];
  /** What is read of a tensor; not returned by `tidy`, which would look for tensors in each of its elements. */
  const read = (compute: () => Variable): Float32Array => {
    let values: Float32Array = new Float32Array();
    tf.tidy(() => {
      values = compute().dataSync();
    });
    return values;
  };
  const withLoss = ways.map(({ run }) => () =>
    read(() => {
      const { grads } = tf.variableGrads(() => run(x).mul(dy).sum());
      return Object.values(grads).find(({ size }) => size === x.size)!;
    })
  );
  const alone = ways.map(({ run, parameters }) => () =>
    read(() => tf.grads((x) => run(x))([x, ...parameters], dy)[0])
  );
  for (const gradients of [withLoss, alone]) {
    checked(gradients.map((run) => run()), `[${shape}]`);
  }
  const [from, to] = [new Float32Array(x.size), new Float32Array(x.size)];
  const copy = () => {
    to.set(from);
    from.set(to);
  };
  const rows = [...withLoss, ...alone, copy].map((run) => ({ run: () => void run() }));
  const [theirs, ours, theirsAlone, oursAlone, copies] = await workTimes(rows, rounds);
  tf.disposeVariables();
  return {
    ...{ withLoss: { theirs, ours }, alone: { theirs: theirsAlone, ours: oursAlone }, copies },
  };
}

/** A training step of a rank: rows of a batch that all ranks share, by a replica of the model. Times the slowest rank. */
export async function timeSteps(group: ProcessGroup, options: Options): Promise<number> {
  const tf = await loadTf("cpu");
  await using device = await wasmDevice();
  const { batch, image, rounds } = options;
  const plain = tf.sequential({
    layers: [
      ...[8, 16].flatMap((filters, i) => [
        tf.layers.conv2d({
          ...{ filters, kernelSize: 3, padding: "same", useBias: false },
          ...(i === 0 ? { inputShape: [image, image, 1] } : {}),
          kernelInitializer: tf.initializers.glorotUniform({ seed: 1 + i }),
        }),
        tf.layers.batchNormalization(),
        tf.layers.reLU(),
      ]),
      tf.layers.globalAveragePooling2d({}),
      tf.layers.dense({ units: 10, kernelInitializer: tf.initializers.glorotUniform({ seed: 9 }) }),
    ],
  });
  const converted = await convertSyncBatchNorm(tf, plain, group, { device });
  converted.compile({ optimizer: "sgd", loss: "meanSquaredError" });
  const model = replicate(tf, converted, group);
  const rows = batch / group.worldSize;
  const x = tf.randomNormal([rows, image, image, 1], 0, 1, "float32", 3 + group.rank);
  const y = tf.randomNormal([rows, 10], 0, 1, "float32", 5 + group.rank);
  const times: number[] = [];
  for (let round = -1; round < rounds; round++) {
    await group.barrier();
    const start = performance.now();
    await model.trainOnBatch(x, y);
    await group.barrier();
    if (round >= 0) times.push(performance.now() - start);
  }
  return median(times);
}

const HELP = `\
Times forward and backward of a batch norm in TensorFlow.js, its own layer beside syncBatchNorm on
Wasm, on its cpu and wasm backends; and a training step of a CNN on one worker and on two.

Usage: deno task bench:adapters [flags]

  --machine NAME   what the processor is called
  --quick          one round of small shapes
  --write          write the section of bench/README.md`;

async function main(): Promise<void> {
  const { has, value } = commandLine(HELP);
  const options = has("quick") ? QUICK : USUAL;
  const layers: string[][] = [];
  for (const backend of BACKENDS) {
    const tf = await loadTf(backend);
    for (const shape of options.shapes) {
      const { withLoss, alone, copies } = await timeLayer(tf, shape, options.rounds);
      layers.push([
        ...[`[${shape}]`, backend],
        ...[withLoss, alone].flatMap(({ theirs, ours }) => [
          ...[figure(theirs), figure(ours), figure(theirs / ours)],
        ]),
        figure(copies),
      ]);
    }
  }
  const steps: string[][] = [];
  const missing: string[] = [];
  const run = workers({ wait: "block", transport: "shared" });
  const task = { module: import.meta.url, name: "timeSteps" };
  for (const ranks of [1, 2]) {
    try {
      const time = await run<Options, number>(ranks, task, options);
      steps.push([String(ranks), String(options.batch / ranks), figure(time)]);
    } catch (error) {
      missing.push(
        `A training step on ${ranks} workers: not measured, ${(error as Error).message}.`,
      );
    }
  }
  const { machine, date } = captionOf(value("machine", NOBODY));
  const text = section(
    paragraph(
      `By \`deno task bench:adapters\`, on ${machine}, Deno ${Deno.version.deno}, TensorFlow.js 4.22.0; ` +
        `${date}. Forward and backward of one batch norm, channels last, within \`tf.variableGrads\`: ` +
        `TensorFlow.js's own layer, and \`syncBatchNorm\` with a Wasm device of one thread; median of ` +
        `${options.rounds} rounds in turns, in ms. The loss, the sum of y times dy, is TensorFlow.js's own in both ` +
        `columns, and most of what is left in ours; "alone" is without it, by \`tf.grads\` from dy on. Two copies of the ` +
        `batch are the limit: no layer does less than read and write it once in each direction.`,
    ),
    table([
      [
        ...["shape", "backend", "own layer", "syncBatchNorm", "times faster"],
        ...["own alone", "ours alone", "times faster", "two copies"],
      ],
      ...layers,
    ]),
    paragraph(
      `A training step of a CNN of two convolutions on images of ${options.image}x${options.image}, ` +
        `TensorFlow.js's cpu backend in each worker, by \`trainOnBatch\` of a replica, in ms.`,
    ),
    ...(steps.length > 0 ? [table([["workers", "images each", "step"], ...steps])] : []),
    ...list(missing),
  );
  console.log(text);
  if (has("write")) await writeSection("adapters", text);
}

// Not awaited: workers load this module, which must be done by then.
if (import.meta.main) main();
