/**
 * Trees, and the one rule for what belongs to them: models, states, gradients, results.
 *
 * Branches are plain records, arrays, Maps, Sets and objects of classes; their children are own enumerable fields with text
 * keys, elements and entries. Getters are not called (but by {@linkcode reach}), and symbols, private fields, functions and views of buffers
 * have no children. A path is made of keys and indices joined by dots, as in PyTorch. What is to be replaced must stand in
 * branches that can be rebuilt without loss: an object of a class cannot.
 */

import { quote, shown, wrongKind } from "./words.ts";

/** Branches above each other: far more than any network has. */
const DEEPEST = 1000;

/** Places of what is looked for: branches that stand many times may multiply them without end. */
const MOST_PLACES = 100_000;

/** Branches that are walked before they are remembered: most trees are small, and only a cycle has no end. */
const SMALL_TREE = 64;

/** Stands for what a getter would make. */
export const GETTER: unique symbol = /* @__PURE__ */ Symbol("what a getter makes");

/** Nodes of a model in the order in which they stand, each with all the paths that it stands at. */
export type Nodes<N extends object> = ReadonlyMap<N, readonly string[]>;

/** Finds nodes of a model; what stands below a node that is found is part of it. */
export function nodesOf<N extends object>(
  model: unknown,
  isNode: (value: object) => value is N,
  action: string,
): Nodes<N> {
  const found = new Map<N, string[]>();
  for (const [node, path] of placesOf(model, isNode, action)) {
    const paths = found.get(node);
    if (paths) paths.push(path);
    else found.set(node, [path]);
  }
  return found;
}

/** Finds every place of the nodes that {@linkcode nodesOf} finds. */
export function placesOf<N extends object>(
  model: unknown,
  isNode: (value: object) => value is N,
  action: string,
): readonly (readonly [node: N, path: string])[] {
  const places: (readonly [N, string])[] = [];
  fold<true>(model, {
    action,
    found: () => places.length,
    leaf: (value, path) => {
      if (!isObject(value) || !isNode(value)) return undefined;
      places.push([value, path]);
      return true;
    },
    branch: () => true,
  });
  return places;
}

/** Replaces nodes of a model. */
export function withNodes<T>(
  model: T,
  replacements: ReadonlyMap<unknown, unknown>,
  action: string,
): T {
  const result = fold<{ readonly to: unknown }>(model, {
    action,
    // Nothing is counted, so that each branch is rebuilt once.
    found: () => 0,
    leaf: (value) => replacements.has(value) ? { to: replacements.get(value) } : undefined,
    branch: (branch, children, path) => {
      if (children.every(({ value, result }) => result === undefined || result.to === value)) {
        return { to: branch };
      }
      const copy = copierOf(branch);
      if (copy === null) throw classError(branch, path, action);
      return { to: copy(children.map(({ value, result }) => result ? result.to : value)) };
    },
  });
  return (result ? result.to : model) as T;
}

/** A child of a branch, and what became of it. */
export interface Child<R> {
  readonly step: string;
  readonly value: unknown;
  /** undefined for what is neither a leaf nor a branch, and for what closes a cycle. */
  readonly result: R | undefined;
}

/** How a tree is folded. */
export interface Fold<R> {
  readonly action: string;
  /** What the tree is called, for messages; "model" by default. */
  readonly name?: string;
  /** Whether every value belongs, so that what has no end is an error though nothing was found in it. */
  readonly strict?: boolean;
  /** Whether fields and entries are visited by their keys, in whatever order they were written. */
  readonly sorted?: boolean;
  /** How many places were found so far; a branch in which there are none is folded once, wherever it stands. */
  readonly found: () => number;
  /** What a value becomes; undefined for what may be a branch, or is nothing. */
  readonly leaf: (value: unknown, path: string) => R | undefined;
  /** What a branch becomes; its children are in the order in which they stand. */
  readonly branch: (branch: object, children: readonly Child<R>[], path: string) => R;
}

/** Folds a tree from its leaves up. */
export function fold<R>(tree: unknown, how: Fold<R>): R | undefined {
  const { action, name = "model", strict = false, sorted = false, found, leaf, branch } = how;
  const above = new Map<object, string>();
  const done = new Map<object, R>();
  const cycles = new Map<object, string>();
  const refuseCycle = (start: object, end: string): never => {
    const first = called(above.get(start) ?? "", `the ${name} itself`);
    throw new TypeError(
      `Cannot ${action} as a ${name} must be a tree: current ${end} is ${first} again, a cycle; ` +
        `a way back up belongs into a private #field`,
    );
  };
  const tooDeep = (path: string): never => {
    throw new RangeError(
      `Cannot ${action} as a ${name} must be at most ${DEEPEST} branches deep: ` +
        `current path goes deeper and begins with ${quote(path)}`,
    );
  };
  const open: Opened<R>[] = [];
  /** Begins with a value: what it becomes, or {@linkcode OPENED} where its children come first. */
  const begin = (value: unknown, path: string): R | undefined | typeof OPENED => {
    const own = leaf(value, path);
    if (found() > MOST_PLACES) {
      throw new RangeError(
        `Cannot ${action} as a ${name} must have at most ${MOST_PLACES} places, a branch that ` +
          `stands many times counted each time: current path of the first that is too many ` +
          `begins with ${quote(path)}`,
      );
    }
    if (own !== undefined || !isBranch(value)) return own;
    const known = done.get(value);
    if (known !== undefined) return known;
    if (above.has(value)) {
      cycles.set(value, path);
      return strict ? refuseCycle(value, path) : undefined;
    }
    const before = found();
    if (above.size < DEEPEST) {
      above.set(value, path);
      const all = childrenOf(value).map(([step, child], at) => [at, step, child] as const);
      if (sorted && !Array.isArray(value)) all.sort(([, a], [, b]) => a < b ? -1 : Number(a > b));
      open.push({ value, path, before, all, children: [], next: 0 });
      return OPENED;
    }
    // What is somebody else's may be as deep as it likes.
    if (strict) tooDeep(path);
    reach(value, (node) => leaf(node, path) !== undefined, () => found() === before);
    if (found() > before) tooDeep(path);
    return become(value, [], path, before);
  };
  const become = (value: object, children: readonly Child<R>[], path: string, before: number) => {
    const result = branch(value, children, path);
    if (found() === before) done.set(value, result);
    return result;
  };
  // Not by calls within calls: of those a worker's stack holds too few.
  let result = begin(tree, "");
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const { value, path, before, all, children } = top;
    if (result !== OPENED) {
      const [at, step, child] = all[top.next++];
      children[at] = { step, value: child, result };
    }
    if (top.next < all.length) {
      const [, step, child] = all[top.next];
      result = begin(child, path === "" ? step : `${path}.${step}`);
    } else {
      const end = cycles.get(value);
      if (end !== undefined && found() > before) refuseCycle(value, end);
      above.delete(value);
      open.pop();
      result = become(value, children, path, before);
    }
  }
  return result as R | undefined;
}

/** Says that a branch was opened: its children come first. */
const OPENED: unique symbol = /* @__PURE__ */ Symbol("a branch was opened");

/** A branch whose children are being folded. */
interface Opened<R> {
  readonly value: object;
  readonly path: string;
  /** What was found before it. */
  readonly before: number;
  /** In the order of their folding. */
  readonly all: readonly (readonly [at: number, step: string, value: unknown])[];
  readonly children: Child<R>[];
  /** How many of them are done. */
  next: number;
}

/**
 * Walks a tree of any depth, with cycles or without, in the order of fields: results name their tensors first. This is what
 * every region and release does: fields are read as anybody reads them, since to ask each first whether it is a getter takes
 * a fifth of a small training step.
 */
export function reach(
  tree: unknown,
  take: (node: object) => boolean,
  more: () => boolean = () => true,
): void {
  if (!isObject(tree)) return;
  let seen: Set<object> | undefined;
  let walked = 0;
  const pending: object[] = [tree];
  while (pending.length > 0 && more()) {
    const node = pending.pop()!;
    if (take(node) || isShape(node) || !isBranch(node)) continue;
    if (++walked > SMALL_TREE) {
      seen ??= new Set();
      if (seen.has(node)) continue;
      seen.add(node);
    }
    for (const child of valuesOf(node).reverse()) if (isObject(child)) pending.push(child);
  }
}

/** A shape, or another few numbers: every tensor has one, and to look into them took a seventh of a small release. */
function isShape(node: object): boolean {
  if (!Array.isArray(node) || node.length > 8) return false;
  for (let i = 0; i < node.length; i++) if (typeof node[i] !== "number") return false;
  return true;
}

function valuesOf(branch: object): unknown[] {
  if (branch instanceof Set) return [...branch];
  if (branch instanceof Map) return [...branch.keys(), ...branch.values()];
  try {
    return Object.values(branch);
  } catch {
    return childrenOf(branch).map(([, value]) => value); // A getter throws.
  }
}

/** The children of a branch. An entry of a Map by an object or a symbol goes by its index, and so does the key. */
function childrenOf(branch: object): readonly (readonly [step: string, value: unknown])[] {
  if (branch instanceof Set) return [...branch].map((value, at) => [`${at}`, value]);
  if (branch instanceof Map) {
    return [...branch].flatMap(([key, value], at) =>
      isObject(key)
        ? [[`keys.${at}`, key], [`${at}`, value]]
        : [[typeof key === "symbol" ? `${at}` : String(key), value]]
    );
  }
  return Object.keys(branch).map((key) => {
    // A getter is not to be called, as it may make another object each time.
    const { get, set, value } = Object.getOwnPropertyDescriptor(branch, key) ?? {};
    return [key, get === undefined && set === undefined ? value : GETTER];
  });
}

/** Remembers a branch as it is now, to make it again. */
export function copierOf(branch: object): ((children: readonly unknown[]) => object) | null {
  const prototype = Object.getPrototypeOf(branch);
  if (prototype === Set.prototype) return (children) => Object.freeze(new Set(children));
  if (prototype === Map.prototype) {
    const keys = [...(branch as Map<unknown, unknown>).keys()];
    return (children) => {
      let at = 0;
      return Object.freeze(
        new Map(keys.map((key) => [isObject(key) ? children[at++] : key, children[at++]])),
      );
    };
  }
  if (prototype !== Array.prototype && !isRecord(branch)) return null;
  const fields: Record<PropertyKey, PropertyDescriptor> = Object.getOwnPropertyDescriptors(branch);
  const keys = Object.keys(branch);
  return (children) => {
    const changed = { ...fields };
    keys.forEach((key, at) => {
      const plain = { enumerable: true, writable: true, configurable: true };
      if (!("get" in fields[key])) changed[key] = { value: children[at], ...plain };
    });
    const empty = Array.isArray(branch) ? [] : Object.create(prototype);
    return Object.freeze(Object.defineProperties(empty, changed));
  };
}

/** Refuses a tree in which there is nothing of what a call is about: it is not what the caller took it for. */
export function checkFound(found: number, model: unknown, action: string, wanted: string): void {
  if (found > 0) return;
  const held = isBranch(model)
    ? `holds ${childrenOf(model).slice(0, 8).map(([step]) => step).join(", ") || "nothing"}`
    : `is ${shown(model)}`;
  throw new TypeError(
    `Cannot ${action} as it must be or hold ${wanted}, in fields that are neither private nor ` +
      `getters: current value ${held}; allowNone takes it as it is`,
  );
}

/** Refuses a node of ours that is not plain data, as it could not be made again without losing its class. */
export function checkRecord(node: object, here: string): void {
  if (isRecord(node)) return;
  throw wrongKind(here, "a layer, a state or a tensor must be a plain record", node);
}

function classError(branch: object, path: string, action: string): TypeError {
  return new TypeError(
    `Cannot ${action} as what stands in ${called(path)} is to be replaced, and an object of a ` +
      `class cannot be made again without its constructor: current value is ${shown(branch)}; ` +
      `keep its layers in a plain record, an array or a Map, and build the object around the result`,
  );
}

/** Names a place in a tree for a message. */
export function called(path: string, root = "the model itself"): string {
  return path === "" ? root : path;
}

/** Tells whether a value is a plain record. */
export function isRecord(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isBranch(value: unknown): value is object {
  return isObject(value) && !ArrayBuffer.isView(value);
}
