/** What ranks in other threads and processes load: the tasks of all suites, once, in one file. */

/** Every module with tasks that suites have for any kind of group. */
export const TASK_MODULES: readonly string[] = [
  ...["./suites/groups.ts", "./suites/law.ts", "./exact/law.ts", "./suites/blocking.ts"],
  ...["./suites/second_order_groups.ts", "./suites/data_parallel_groups.ts"],
  ...["./suites/pytorch_examples.ts", "../examples/pytorch/layers.ts"],
].map((path) => new URL(path, import.meta.url).href);

/** Lines of a program that exports modules by their addresses, as `modules`. */
export function gathered(addresses: readonly string[]): string {
  const imports = addresses.map((address, i) => `import * as module${i} from "${address}";`);
  const entries = addresses.map((address, i) => `"${address}": module${i}`);
  return [...imports, `export const modules = { ${entries.join(", ")} };`].join("\n");
}
