// Sums that gradients need, of one channel.

import { total, zeros } from "./vectors";

/** (sum dy, sum dy * (x - shift)) of one channel in float64, and sums in lanes that are still to be added. */
@unmanaged
export class ChannelSums {
  dy: f64;
  products: f64;
  /** hi, the mean as float32. */
  shift: f32;
  pending: u32;
  reserved: f64;
  dyLanes: v128;
  productLanes: v128;
}

/** Adds what is pending. */
export function settleSums(channel: ChannelSums): void {
  channel.dy += total(channel.dyLanes);
  channel.products += total(channel.productLanes);
  channel.pending = 0;
  channel.dyLanes = zeros();
  channel.productLanes = zeros();
}
