/**
 * How what came from a file or a caller is shown in messages.
 *
 * @module
 */

/**
 * Quotes a text for a message, and shortens it: names come from a file, may be long, and may hold what a terminal would
 * act upon.
 */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
    .replace(/[\p{Other}\p{Zl}\p{Zp}]/gu, (point) => `\\u{${point.codePointAt(0)?.toString(16)}}`);
}

/** Describes a value for a message. */
export function shown(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  return `of class ${Object.getPrototypeOf(value)?.constructor?.name ?? "null"}`;
}

/** Shows integers in a message. */
export function listed(values: readonly number[]): string {
  return `(${values.slice(0, 8).join(", ")}${values.length > 8 ? ", …" : ""})`;
}

/** What a value of the wrong kind probably is, and what to do about it: the end of a message, or nothing. */
export function mistaken(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  const has = (...names: readonly string[]) => names.every((name) => name in value);
  if (has("then")) return "; it is a promise: await it first";
  if (has("info", "upload")) return "; it is a device";
  if (has("numFeatures", "eps")) {
    return "; it is a state: take its fields, or initLayer to make a layer";
  }
  if (has("kind", "processGroup")) {
    return "; it is a layer: give its field state, or use applyLayer, inferLayer and backwardLayer";
  }
  if (has("output", "saved")) return "; it is what forward returned: give one of its fields";
  if (has("data", "shape", "dtype")) return "; it is a tensor: its array is its field data";
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    return "; numbers become a tensor by tensor(device, values, shape), a vector by device.upload";
  }
  return "";
}
