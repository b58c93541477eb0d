/** The GPU's own clock. */

import { median } from "../measure.ts";

export async function gpuMilliseconds(
  gpuDevice: GPUDevice,
  run: () => void,
  calls: number,
  rounds: number,
): Promise<number> {
  const querySet = gpuDevice.createQuerySet({ type: "timestamp", count: 2 });
  const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const resolved = gpuDevice.createBuffer({ size: 256, usage: QUERY_RESOLVE | COPY_SRC });
  const read = gpuDevice.createBuffer({ size: 256, usage: COPY_DST | MAP_READ });
  const mark = (index: number, then: (encoder: GPUCommandEncoder) => void = () => {}) => {
    const encoder = gpuDevice.createCommandEncoder();
    const pass = encoder.beginComputePass({
      timestampWrites: index === 0
        ? { querySet, beginningOfPassWriteIndex: 0 }
        : { querySet, endOfPassWriteIndex: 1 },
    });
    pass.end();
    then(encoder);
    gpuDevice.queue.submit([encoder.finish()]);
  };
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    mark(0);
    for (let i = 0; i < calls; i++) run();
    mark(1, (encoder) => {
      encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, read, 0, 16);
    });
    await read.mapAsync(GPUMapMode.READ);
    const [begin, end] = new BigUint64Array(read.getMappedRange(0, 16).slice(0));
    read.unmap();
    times.push(Number(end - begin) / 1e6 / calls);
  }
  querySet.destroy();
  resolved.destroy();
  read.destroy();
  return median(times);
}
