/**
 * Models as trees of plain records and arrays: the nodes that are ours found by their paths, and replaced.
 *
 * Everything else (class instances, functions, typed arrays, Maps, what a getter makes) is somebody else's: it is not looked
 * into and stays the same object.
 *
 * @module
 */

import { quote } from "../words.ts";

/** Branches above each other; ten times as many would still fit onto a stack of calls. */
const DEEPEST = 1000;

/** Nodes of a model in the order in which they stand, each with all the paths that it stands at. */
export type Nodes<N extends object> = ReadonlyMap<N, readonly string[]>;

/**
 * Finds nodes of a model; what stands below a node that is found is part of it.
 *
 * @param model a tree of plain records and arrays, in which a node may stand several times
 * @param isNode whether an object is one of those that are looked for
 * @param action what the caller was about to do, for the message
 * @returns the nodes and their paths: keys and indices joined by dots, as in PyTorch; `""` for the model itself
 * @throws TypeError for a cycle, naming its path, RangeError for a tree that is too deep
 */
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

/**
 * Finds every place of the nodes that {@linkcode nodesOf} finds.
 *
 * @param model a tree of plain records and arrays, in which a node may stand several times
 * @param isNode whether an object is one of those that are looked for
 * @param action what the caller was about to do, for the message
 * @returns nodes with one path each, in the order in which they stand
 * @throws TypeError for a cycle, naming its path, RangeError for a tree that is too deep
 */
export function placesOf<N extends object>(
  model: unknown,
  isNode: (value: object) => value is N,
  action: string,
): readonly (readonly [node: N, path: string])[] {
  const places: (readonly [N, string])[] = [];
  const above = new Map<object, string>();
  // A branch that stands many times is walked once where there is nothing to find.
  const barren = new Set<object>();
  const visit = (value: object, path: string): void => {
    if (isNode(value)) {
      places.push([value, path]);
      return;
    }
    if (barren.has(value) || !isBranch(value)) return;
    const start = above.get(value);
    if (start !== undefined) {
      throw new TypeError(
        `Cannot ${action} as a model must be a tree: current ${called(path)} is ${
          called(start)
        } again, a cycle`,
      );
    }
    if (above.size === DEEPEST) {
      throw new RangeError(
        `Cannot ${action} as a model must be at most ${DEEPEST} branches deep: ` +
          `current path goes deeper and begins with ${quote(path)}`,
      );
    }
    above.set(value, path);
    const before = places.length;
    for (const [key, child] of childrenOf(value)) {
      visit(child, path === "" ? key : `${path}.${key}`);
    }
    above.delete(value);
    if (places.length === before) barren.add(value);
  };
  if (typeof model === "object" && model !== null) visit(model, "");
  return places;
}

/**
 * Replaces nodes of a model.
 *
 * @param model a tree as of {@linkcode nodesOf}, without cycles; it is not changed
 * @param replacements new nodes by old ones
 * @returns a tree of the same make, frozen where it is new; branches without a replaced node are the same objects, and
 * what stood twice still does
 */
export function withNodes<T>(model: T, replacements: ReadonlyMap<unknown, unknown>): T {
  const done = new Map<unknown, unknown>(replacements);
  const visit = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    if (done.has(value)) return done.get(value);
    if (!isBranch(value)) return value;
    const children = childrenOf(value).map(([key, child]) => [key, child, visit(child)] as const);
    const same = children.every(([, old, child]) => old === child);
    const result = same ? value : rebuilt(value, children.map(([key, , child]) => [key, child]));
    done.set(value, result);
    return result;
  };
  return visit(model) as T;
}

/**
 * Names a place in a model for a message.
 *
 * @param path its path
 * @returns the path, or words for the model itself
 */
export function called(path: string): string {
  return path === "" ? "the model itself" : path;
}

/**
 * Tells whether a value is a plain record.
 *
 * @param value any object
 * @returns whether nobody's class stands behind it
 */
export function isRecord(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Whether a value is part of the tree itself. */
function isBranch(value: object): boolean {
  return Array.isArray(value) ? Object.getPrototypeOf(value) === Array.prototype : isRecord(value);
}

/** The objects that stand in a branch by a key; a getter might make another one each time. */
function childrenOf(branch: object): readonly (readonly [key: string, child: object])[] {
  const children: (readonly [string, object])[] = [];
  for (const key of Object.keys(branch)) {
    const { value } = Object.getOwnPropertyDescriptor(branch, key) ?? {};
    if (typeof value === "object" && value !== null) children.push([key, value]);
  }
  return children;
}

/** A branch with other children: prototype, holes and symbols as they were. */
function rebuilt(branch: object, children: readonly (readonly unknown[])[]): object {
  const descriptors = Object.getOwnPropertyDescriptors(branch) as Record<
    PropertyKey,
    PropertyDescriptor
  >;
  for (const [key, value] of children) {
    descriptors[key as string] = {
      value,
      ...{ enumerable: true, writable: true, configurable: true },
    };
  }
  const empty = Array.isArray(branch) ? [] : Object.create(Object.getPrototypeOf(branch));
  return Object.freeze(Object.defineProperties(empty, descriptors));
}
