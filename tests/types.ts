/**
 * Devices, groups and saved that do not fit do not compile. Nothing here is ever called: `deno task ok` checks its types, and
 * a marked line that is no error is one.
 */

import {
  applyLayer,
  batchNormForward,
  type BatchNormLayer,
  convertSyncBatchNorm,
  type Device,
  inferLayer,
  initBatchNorm,
  initLayer,
  initLazyLayer,
  type LazyBatchNormLayer,
  type LocalForward,
  type ProcessGroup,
  type ReduceGroup,
  type ReferenceArray,
  referenceDevice,
  revertSyncBatchNorm,
  syncBatchNormForward,
  type Tensor,
  tensor,
} from "../mod.ts";
import { unwrap, type WebGpuArray, wrap } from "../kernels/webgpu_device.ts";

/** It only has to compile, and its marked lines must not. */
export function compileTime(
  other: Device<WebGpuArray>,
  group: ProcessGroup,
  buffer: GPUBuffer,
): void {
  const device = referenceDevice();
  const state = initBatchNorm(device, 2);
  const x: Tensor<ReferenceArray> = tensor(device, [1, 2], [1, 2]);
  // @ts-expect-error A tensor of one kind of device on another.
  batchNormForward(state, x, { device: other });
  // @ts-expect-error A state of one kind of device with a tensor of another.
  batchNormForward(initBatchNorm(other, 2), x, { device });
  // @ts-expect-error A function that cannot communicate takes no group.
  batchNormForward(state, x, { device, group });
  // @ts-expect-error Backward needs the input, so training cannot be given it.
  batchNormForward(state, x, { device }, { donate: true });
  // @ts-expect-error A synchronised function needs one.
  syncBatchNormForward(state, x, { device });
  // @ts-expect-error States are immutable.
  state.eps = 1;
  // @ts-expect-error Tensors are immutable.
  x.shape[0] = 2;
  // @ts-expect-error What a GPU's buffer holds is no tensor of the CPU.
  wrap(device, { buffer }, [1, 2]);
  // @ts-expect-error Nor the other way round.
  unwrap(x);
  const wrapped: Tensor<WebGpuArray> = wrap(other, { buffer }, [1, 2]);
  batchNormForward(initBatchNorm(other, 2), wrapped, { device: other });
  const minimal: ReduceGroup = { worldSize: 2, allReduce: group.allReduce };
  syncBatchNormForward(state, x, { device, group: minimal });
  const local: LocalForward<ReferenceArray> = batchNormForward(state, x, { device });
  // @ts-expect-error A local forward is no promise.
  local.then();
  layers(device, x, other, group);
}

function layers(
  device: Device<ReferenceArray>,
  x: Tensor<ReferenceArray>,
  other: Device<WebGpuArray>,
  group: ProcessGroup,
): void {
  const layer = initLayer(device, "batchNorm1d", 2);
  const model = { rate: 0.5 as const, blocks: [{ ...layer, name: "stem" }, null] as const };
  // The type of the tree is kept, tuples, literals and fields of one's own included.
  const converted: typeof model = revertSyncBatchNorm(convertSyncBatchNorm(model));
  const name: string = converted.blocks[0].name;
  const lazy = [initLazyLayer("batchNorm")] as const;
  convertSyncBatchNorm(lazy)[0].lazy.eps satisfies number | undefined;
  applyLayer(converted.blocks[0], x, { device }).then(({ layer }) => layer.name satisfies string);
  applyLayer(lazy[0], x, { device }).then(({ layer }) =>
    layer satisfies BatchNormLayer<ReferenceArray>
  );
  // A lazy layer's own fields stay with it, its state comes.
  const named = { ...lazy[0], name: "stem" };
  applyLayer(named, x, { device }).then(({ layer }) => {
    layer.name satisfies string;
    layer.state.weight satisfies ReferenceArray | null;
  });
  const either: BatchNormLayer<ReferenceArray> | LazyBatchNormLayer = named;
  applyLayer(either, x, { device }).then(({ layer }) => layer.state satisfies object);
  // @ts-expect-error A conversion keeps the type, it does not make another.
  converted.blocks[1].kind;
  // @ts-expect-error A name is not what groups are.
  convertSyncBatchNorm(model, { processGroup: group });
  // @ts-expect-error A layer of one kind of device on another.
  applyLayer(layer, x, { device: other });
  // @ts-expect-error Groups have names.
  applyLayer(layer, x, { device, groups: [group] });
  // @ts-expect-error Evaluation takes no groups, and a lazy layer must have seen a batch.
  inferLayer(lazy[0], x, { device });
  // @ts-expect-error Layers are immutable.
  layer.processGroup = name;
}
