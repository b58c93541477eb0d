/**
 * Buffers of the demo's own kernels: freed ones are used again, so that memory stays as it is from step to step.
 *
 * @module
 */

/** Where buffers come from, and go to. */
export interface Buffers extends Disposable {
  /** Gives a buffer of at least so many bytes; what is in it is undefined. */
  readonly take: (bytes: number, usage: number) => GPUBuffer;
  /**
   * Takes a buffer back. Nobody need wait until the GPU is done with it: what is submitted later also runs later.
   */
  readonly give: (buffer: GPUBuffer) => void;
}

/** WebGPU binds no empty buffers, so that even an empty vector gets some bytes. */
const SMALLEST = 256;

/**
 * Makes a store of buffers.
 *
 * @param gpuDevice where they live
 * @returns the store; to dispose it destroys all of them
 */
export function buffersOn(gpuDevice: GPUDevice): Buffers {
  const all = new Set<GPUBuffer>();
  const idle = new Map<string, GPUBuffer[]>();
  const shelf = (size: number, usage: number): GPUBuffer[] => {
    const key = `${size} ${usage}`;
    const buffers = idle.get(key) ?? [];
    idle.set(key, buffers);
    return buffers;
  };
  return Object.freeze<Buffers>({
    take: (bytes, usage) => {
      const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, SMALLEST)));
      const buffer = shelf(size, usage).pop() ??
        gpuDevice.createBuffer({ size, usage, label: "demo" });
      all.add(buffer);
      return buffer;
    },
    give: (buffer) => {
      shelf(buffer.size, buffer.usage).push(buffer);
    },
    [Symbol.dispose]: () => {
      for (const buffer of all) buffer.destroy();
    },
  });
}
