/** What the suites use of Deno, where there is none: tests are registered here, files are fetched, nothing is permitted. */

/** A registered test. */
export interface Registered {
  readonly name: string;
  readonly fn: () => void | Promise<void>;
  readonly ignore: boolean;
}

/** All tests, in the order in which they were registered. */
export const TESTS: Registered[] = [];

/**
 * Leaves out tests of what no browser has, each for a reason.
 *
 * @param reasons by the names of the tests, which must be registered: so none is left out that is gone
 */
export function leaveOut(reasons: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(reasons)) {
    const at = TESTS.findIndex((test) => test.name === name);
    if (at < 0) throw new Error(`there is no test ${JSON.stringify(name)} to leave out`);
    TESTS.splice(at, 1);
  }
}

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
