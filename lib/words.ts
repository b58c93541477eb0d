/** The words of errors: what was wanted, and how what came from a file or a caller is shown. */

/** Quotes and shortens a text: names from a file may be long, and hold what a terminal would act upon. */
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

/** Describes a value, of which a text is words already. */
const plain = (value: unknown) => typeof value === "string" ? value : shown(value);

/** Shows a shape in a message, or what came instead of one. */
export function listed(shape: unknown): string {
  if (!Array.isArray(shape)) return plain(shape);
  return `(${shape.slice(0, 8).map(plain).join(", ")}${shape.length > 8 ? ", …" : ""})`;
}

/** Names ranks in a message. */
export function ranksOf(ranks: readonly number[]): string {
  return `${ranks.length === 1 ? "rank" : "ranks"} ${ranks.join(", ")}`;
}

/** The error for what is of another kind or shape than was wanted; `noun` is what came: a value, a shape, a length. */
export function wrongKind(action: string, wanted: string, came: unknown, noun = "value") {
  return new TypeError(sentence(action, wanted, came, noun));
}

/** The error for what is of the right kind, and out of range. */
export function wrongValue(action: string, wanted: string, came: unknown, noun = "value") {
  return new RangeError(sentence(action, wanted, came, noun));
}

/** The error for what is best told in words of its own: `current` begins with a noun. */
export function refused(action: string, wanted: string, current: string): TypeError {
  return new TypeError(`Cannot ${action} as ${wanted}: current ${current}`);
}

function sentence(action: string, wanted: string, came: unknown, noun: string): string {
  const text = noun === "shape" ? listed(came) : shown(came);
  return `Cannot ${action} as ${wanted}: current ${noun} is ${text}`;
}

/** The error for two things that do not fit each other. */
export function wrongPair(action: string, wanted: string, one: unknown, other: unknown): TypeError {
  return refused(action, wanted, `values are ${plain(one)} and ${plain(other)}`);
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
