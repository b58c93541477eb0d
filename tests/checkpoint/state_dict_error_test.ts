import assert from "node:assert/strict";
import { StateDictError } from "../../lib/checkpoint.ts";

Deno.test("a StateDictError keeps its cause and copies its names", () => {
  const cause = new Error("the file is another one");
  const names = { missing: ["a"], unexpected: ["b"], mismatched: ["c"] };
  const error = new StateDictError("no", names, { cause });
  for (const list of Object.values(names)) list.push("later");
  assert(error instanceof Error);
  assert.deepEqual([error.name, error.message, error.cause], ["StateDictError", "no", cause]);
  assert.equal(error.cause, cause);
  const { missing, unexpected, mismatched } = error;
  assert.deepEqual([missing, unexpected, mismatched], [["a"], ["b"], ["c"]]);
  for (const list of [missing, unexpected, mismatched]) assert(Object.isFrozen(list));
  assert(!("cause" in new StateDictError("no", names)));
});
