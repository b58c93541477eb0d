/** What the suites use of Deno, where there is none: tests are registered here, files are fetched, nothing is permitted. */

/** A registered test. */
export interface Registered {
  readonly name: string;
  readonly fn: () => void | Promise<void>;
  readonly ignore: boolean;
}

/** All tests, in the order in which they were registered. */
export const TESTS: Registered[] = [];

type Fn = Registered["fn"];
type Definition = { readonly name: string; readonly fn: Fn; readonly ignore?: boolean };

function test(first: string | Definition, fn?: Fn): void {
  const { name, ignore = false, ...rest } = typeof first === "string"
    ? { name: first, fn: fn! }
    : first;
  TESTS.push({ name, fn: rest.fn, ignore });
}
test.ignore = (name: string, fn: Fn): void => test({ name, fn, ignore: true });

async function fetched(address: string | URL): Promise<Response> {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer;
}

/** Stands in for the global `Deno` in modules of the tests. */
export const Deno = {
  test,
  readFile: async (file: string | URL): Promise<Uint8Array<ArrayBuffer>> =>
    new Uint8Array(await (await fetched(file)).arrayBuffer()),
  permissions: { querySync: () => ({ state: "denied" }) },
  env: { get: () => undefined },
};
