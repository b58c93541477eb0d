/**
 * For those who write a device: the interface, the passes that it computes, and what its arrays and wires hold.
 *
 * `tests/device_suite.ts` is what it must pass; `lib/reference/device.ts` is the specification in plain loops.
 *
 * @module
 */

export type * from "./device.ts";
export {
  type ArrayInfo,
  type Describing,
  type DType,
  type Extents,
  extents,
  type Format,
  type Tensor,
} from "./tensor.ts";
export { countOf, momentsWire, sumsWire, weightedMomentsWire, type WireFormat } from "./wire.ts";
export { DeviceError, type DeviceErrorCode } from "./errors.ts";
