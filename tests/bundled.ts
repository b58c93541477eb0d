/**
 * What ranks load, in one file for each module of tasks: a thread or a process of its own for every rank of every test loads it
 * anew, and a hundred modules take longer than what most of them do. A browser, which is served one file anyway, never makes one.
 */

/** Where the files are, and what is in the making, by its source. */
let folder: string | undefined;
const made = new Map<string, Promise<string>>();

/** The address of a module for whoever starts many threads with it: that of its one file, or in a browser its own. */
export async function inOneFile(module: string): Promise<string> {
  return "Deno" in globalThis ? await bundled(`import "${module}";`) : module;
}

/**
 * Makes a program into one file, once in a run of a test's file, and resolves to its address.
 *
 * @param source the program, whose imports are addresses
 */
export function bundled(source: string): Promise<string> {
  const known = made.get(source) ?? make(source, made.size);
  made.set(source, known);
  return known;
}

async function make(source: string, number: number): Promise<string> {
  folder ??= newFolder();
  const [from, to] = [`${folder}/${number}.ts`, `${folder}/${number}.js`];
  await Deno.writeTextFile(from, source);
  const config = decodeURIComponent(new URL("../deno.json", import.meta.url).pathname);
  const args = ["bundle", "--quiet", `--config=${config}`, `--output=${to}`, from];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return `file://${to}`;
}

function newFolder(): string {
  const folder = Deno.makeTempDirSync({ prefix: "syncbn_ranks_" });
  addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  return folder;
}
