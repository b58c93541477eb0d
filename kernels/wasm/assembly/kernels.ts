// Everything that the host calls. Addresses are bytes in the imported memory; a kernel with `from` and `to` may run on parts of
// a tensor at once, each part with results and scratch memory of its own.

export { gradientCoefficients, means, normalizeCoefficients, spread, updateRunningStats } from "./channels";
export { addScaled, copy, transpose } from "./elementwise";
export { exactMoments, exactSums } from "./exact";
export { gradientsOfColumns } from "./gradients_columns";
export { gradientsOfRows } from "./gradients_rows";
export { mergeMoments, mergeSums } from "./merging";
export { momentsOfColumns } from "./moments_columns";
export { momentsOfRows } from "./moments_rows";
export { normalizeColumns } from "./normalize_columns";
export { normalizeRows } from "./normalize_rows";
export { narrow, widen } from "./storage";
export { sumsOfColumns } from "./sums_columns";
export { sumsOfRows } from "./sums_rows";
