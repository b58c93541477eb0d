/**
 * A device that launches nothing before its batch ends, as a GPU does: the reference device behind a queue.
 *
 * An array has no contents until the task that makes it has run; a task that reads one before that fails. So the suites
 * show that the library launches in order, reads back in time, and frees nothing that is still to be read.
 *
 * What it may overwrite is NaN from then on, so that whoever reads it after all shows it.
 */

import {
  type Affine,
  type ArrayInfo,
  type Device,
  type GradientSums,
  type ReferenceArray,
  referenceDevice,
  type Statistics,
  type Tensor,
} from "../mod.ts";

/** An array of a {@linkcode queuedDevice}. */
export interface QueuedArray {
  readonly device: "queued";
}

interface Slot extends ArrayInfo {
  contents?: ReferenceArray;
}

/** Makes a queued device, and counts its submits. */
export function queuedDevice(): { device: Device<QueuedArray>; submits: () => number } {
  const reference = referenceDevice();
  const slots = new WeakMap<QueuedArray, Slot>();
  const freed = new WeakSet<QueuedArray>();
  let submits = 0;

  const slotOf = (array: QueuedArray): Slot => {
    const slot = slots.get(array);
    if (slot) return slot;
    throw new TypeError(
      freed.has(array) ? "the array was freed" : "the array is another device's, or none",
    );
  };
  /** Checks now that an array is live; gives its contents when the task runs. */
  const later = (array: QueuedArray): () => ReferenceArray => {
    const slot = slotOf(array);
    return () => {
      if (slot.contents) return slot.contents;
      throw new Error("a task read an array before it was launched");
    };
  };
  const laterOrNull = (array: QueuedArray | null): () => ReferenceArray | null =>
    array === null ? () => null : later(array);
  const tensorLater = (tensor: Tensor<QueuedArray>): () => Tensor<ReferenceArray> => {
    const data = later(tensor.data);
    return () => ({ ...tensor, data: data() });
  };
  const tensorOrNull = (tensor: Tensor<QueuedArray> | null) =>
    tensor === null ? () => null : tensorLater(tensor);
  const statisticsLater = (
    statistics: Statistics<QueuedArray>,
  ): () => Statistics<ReferenceArray> => {
    if (statistics.source === "batch") {
      const moments = later(statistics.moments);
      return () => ({ source: "batch", moments: moments() });
    }
    const [mean, variance] = [later(statistics.mean), later(statistics.variance)];
    return () => ({ source: "running", mean: mean(), variance: variance() });
  };
  const affineLater = ({ weight, bias, eps }: Affine<QueuedArray>) => {
    const [scale, offset] = [laterOrNull(weight), laterOrNull(bias)];
    return (): Affine<ReferenceArray> => ({ weight: scale(), bias: offset(), eps });
  };
  const sumsLater = (sums: GradientSums<QueuedArray>) => {
    const [local, total] = [later(sums.local), laterOrNull(sums.total)];
    return (): GradientSums<ReferenceArray> => ({ local: local(), total: total() });
  };

  /** Where an array may be overwritten, what it loses its values by. */
  const spoiler = (array: QueuedArray, overwrite: boolean): () => void => {
    if (!overwrite) return () => {};
    const slot = slotOf(array);
    const { length, dtype } = slot;
    return () => {
      if (slot.contents) reference.free(slot.contents);
      slot.contents = reference.upload(new Float32Array(length).fill(NaN), dtype);
    };
  };

  /** `launch` takes what computes, `afterwards` what only has to come after it. */
  function operations(
    launch: (task: () => void) => void,
    afterwards: (task: () => void) => void,
  ): Device<QueuedArray> {
    const promise = (info: ArrayInfo): [QueuedArray, Slot] => {
      const array: QueuedArray = Object.freeze({ device: "queued" });
      const slot: Slot = { ...info };
      slots.set(array, slot);
      return [array, slot];
    };
    const make = (info: ArrayInfo, compute: () => ReferenceArray): QueuedArray => {
      const [array, slot] = promise(info);
      launch(() => slot.contents = compute());
      return array;
    };
    const read = <T>(start: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => launch(() => start().then(resolve, reject)));
    const vector = (length: number): ArrayInfo => ({ length, dtype: "float32" });
    const infoOf = (array: QueuedArray): ArrayInfo => {
      const { length, dtype } = slotOf(array); // Not its contents.
      return { length, dtype };
    };
    const like = ({ data }: Tensor<QueuedArray>): ArrayInfo => infoOf(data);
    const perChannel = (x: Tensor<QueuedArray>, n: number, more = 0) =>
      vector(more + n * x.shape[1]);
    const orNull = (there: boolean, info: ArrayInfo): [QueuedArray, Slot] | [null, undefined] =>
      there ? promise(info) : [null, undefined];

    const { fused } = reference;
    if (!fused) throw new Error("the reference device has fused operations");

    const gradients: NonNullable<Device<QueuedArray>["fused"]>["gradients"] = (
      x,
      dy,
      statistics,
      sums,
      affine,
      { output, residualFormat, overwrite },
    ) => {
      const spoil = spoiler(dy.data, overwrite);
      const [x0, dy0, z0] = [tensorLater(x), tensorLater(dy), tensorOrNull(output)];
      const [stats, total, params] = [
        statisticsLater(statistics),
        sumsLater(sums),
        affineLater(affine),
      ];
      const [gradInput, dx] = promise(like(x));
      const [gradWeight, dweight] = orNull(affine.weight !== null, perChannel(x, 1));
      const [gradBias, dbias] = orNull(affine.bias !== null, perChannel(x, 1));
      const [gradResidual, dr] = orNull(residualFormat !== null, like(x));
      launch(() => {
        const prologue = { output: z0(), residualFormat, overwrite };
        const made = fused.gradients(x0(), dy0(), stats(), total(), params(), prologue);
        dx.contents = made.gradInput;
        if (dweight) dweight.contents = made.gradWeight ?? undefined;
        if (dbias) dbias.contents = made.gradBias ?? undefined;
        if (dr) dr.contents = made.gradResidual ?? undefined;
        spoil();
      });
      return { gradInput, gradWeight, gradBias, gradResidual };
    };

    const device: Device<QueuedArray> = {
      info: { name: "queued reference", float16: reference.info.float16 },
      upload: (values, dtype = "float32") => {
        const contents = reference.upload(values, dtype); // Arguments are read at once.
        return make({ length: values.length, dtype }, () => contents);
      },
      download: (array) => {
        try {
          const contents = later(array);
          return read(() => reference.download(contents()));
        } catch (error) {
          return Promise.reject(error);
        }
      },
      free: (...arrays) => {
        const dead = new Set(arrays.map(slotOf));
        for (const array of arrays) {
          slots.delete(array);
          freed.add(array);
        }
        // What was launched before still reads them.
        afterwards(() => dead.forEach((slot) => slot.contents && reference.free(slot.contents)));
      },
      owns: (value): value is QueuedArray => slots.has(value as QueuedArray),
      describe: infoOf,
      moments: (x) => {
        const input = tensorLater(x);
        return make(perChannel(x, 2, 1), () => reference.moments(input()));
      },
      momentsToWire: (moments) => {
        const contents = later(moments);
        return read(() => reference.momentsToWire(contents()));
      },
      momentsFromWire: (wire) => {
        const contents = reference.momentsFromWire(wire);
        return make(vector(wire.length), () => contents);
      },
      normalize: (x, statistics, affine) => {
        const [input, stats] = [tensorLater(x), statisticsLater(statistics)];
        const parameters = affineLater(affine);
        return make(like(x), () => reference.normalize(input(), stats(), parameters()));
      },
      updateRunningStats: ({ runningMean, runningVar }, moments, factor) => {
        const [mean, variance, batch] = [later(runningMean), later(runningVar), later(moments)];
        const [newMean, meanSlot] = promise(infoOf(runningMean));
        const [newVar, varSlot] = promise(infoOf(runningVar));
        launch(() => {
          const old = { runningMean: mean(), runningVar: variance() };
          const made = reference.updateRunningStats(old, batch(), factor);
          meanSlot.contents = made.runningMean;
          varSlot.contents = made.runningVar;
        });
        return { runningMean: newMean, runningVar: newVar };
      },
      gradientSums: (x, dy, statistics) => {
        const [input, gradient, stats] = [
          tensorLater(x),
          tensorLater(dy),
          statisticsLater(statistics),
        ];
        return make(
          perChannel(x, 2),
          () => reference.gradientSums(input(), gradient(), stats()),
        );
      },
      sumsToWire: (sums) => {
        const contents = later(sums);
        return read(() => reference.sumsToWire(contents()));
      },
      sumsFromWire: (wire) => {
        const contents = reference.sumsFromWire(wire);
        return make(vector(wire.length), () => contents);
      },
      gradients: (...args) =>
        gradients(...args, { output: null, residualFormat: null, overwrite: false }),
      addScaled: (x, y, scale) => {
        const [a, b] = [later(x), later(y)];
        return make(infoOf(x), () => reference.addScaled(a(), b(), scale));
      },
      relu: (x) => {
        const contents = later(x);
        return make(infoOf(x), () => reference.relu(contents()));
      },
      gate: (dy, output, format) => {
        const [gradient, z] = [tensorLater(dy), tensorOrNull(output)];
        return make(like(dy), () => reference.gate(gradient(), z(), format));
      },
      batch: <R>(body: (device: Device<QueuedArray>) => R): R => {
        const queue: (() => void)[] = [];
        const enqueue = (task: () => void) => void queue.push(task);
        const inner = operations(enqueue, enqueue);
        const joined: Device<QueuedArray> = Object.freeze({
          ...inner,
          batch: <S>(nested: (device: Device<QueuedArray>) => S): S => nested(joined),
        });
        const result = body(joined);
        submits++;
        for (const task of queue) task();
        return result;
      },
      fused: {
        normalize: (x, statistics, affine, { residual, relu, overwrite }) => {
          const spoil = spoiler(x.data, overwrite);
          const [input, stats] = [tensorLater(x), statisticsLater(statistics)];
          const [parameters, added] = [affineLater(affine), tensorOrNull(residual)];
          return make(like(x), () => {
            const epilogue = { residual: added(), relu, overwrite };
            const made = fused.normalize(input(), stats(), parameters(), epilogue);
            spoil();
            return made;
          });
        },
        gradientSums: (x, dy, statistics, { output, ...prologue }) => {
          const [input, gradient] = [tensorLater(x), tensorLater(dy)];
          const [stats, z] = [statisticsLater(statistics), tensorOrNull(output)];
          return make(
            perChannel(x, 2),
            () => fused.gradientSums(input(), gradient(), stats(), { ...prologue, output: z() }),
          );
        },
        gradients,
      },
    };
    return Object.freeze(device);
  }

  const launchAlone = (task: () => void) => {
    submits++;
    task();
  };
  const device = operations(launchAlone, (task) => task());
  return { device, submits: () => submits };
}
