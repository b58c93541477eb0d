// Everything that the host calls. Addresses are bytes in the imported memory; a kernel with `from` and `to` may run on parts of
// a tensor at once, each part with results and scratch memory of its own.

export { gradientCoefficients, means, normalizeCoefficients, spread, updateRunningStats } from "./channels";
export { directionCoefficients, secondCoefficients, secondGradWeight } from "./direction_coefficients";
export { addRecords, recordsFromWire, recordsToWire } from "./digits";
export { follow } from "./directions";
export { addScaled, copy, transpose } from "./elementwise";
export { exactMoments, exactSums } from "./exact";
export { reduceExactly } from "./exact_reduce";
export { beginMoments, resolveMoments, resolveSums } from "./exact_results";
export { weighExactly } from "./exact_weights";
export { map } from "./map";
export { mergeMoments, mergeSums } from "./merging";
export { spreadWeights, weigh } from "./places";
export { reduce } from "./reduce_columns";
export { narrow, widen } from "./storage";
export { rectify } from "./vectors";
export { mapWeighted } from "./weighted_map";
export { exactWeighted, reduceWeighted } from "./weighted_moments";
