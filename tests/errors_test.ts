import assert from "node:assert/strict";
import { isMpiError, MpiError } from "../lib/groups/mpi.ts";
import { CollectiveError, DeviceError, isCollectiveError, isDeviceError } from "../mod.ts";

/** What another bundle of the library throws: the same names and codes, of other classes. */
function foreign(name: string, rest: object): Error {
  return Object.assign(new Error("of another bundle"), { name, ...rest });
}

Deno.test("errors of other copies of the library are told by name and code", () => {
  const late = foreign("CollectiveError", { code: "deadline", ranks: [1] });
  assert(!(late instanceof CollectiveError));
  for (const error of [late, new CollectiveError("late", "deadline", [1])]) {
    assert(isCollectiveError(error) && isCollectiveError(error, "deadline"));
    assert(!isCollectiveError(error, "cancelled") && !isDeviceError(error) && !isMpiError(error));
  }
  const lost = foreign("DeviceError", { code: "lost" });
  for (const error of [lost, new DeviceError("gone", "lost")]) {
    assert(isDeviceError(error) && isDeviceError(error, "lost"));
    assert(!isDeviceError(error, "outOfMemory") && !isCollectiveError(error));
  }
  const twice = foreign("MpiError", { code: "call" });
  for (const error of [twice, new MpiError("twice", "call")]) {
    assert(isMpiError(error) && isMpiError(error, "call") && !isMpiError(error, "library"));
  }
});

Deno.test("what is no such error is none, whatever it is", () => {
  const closed = new Proxy({}, {
    get: () => {
      throw new Error("do not look");
    },
  });
  const others = [undefined, null, 1, "lost", {}, new Error("lost"), closed, {
    name: "DeviceError",
  }];
  for (const other of [...others, { name: "CollectiveError", code: "deadline" }]) {
    for (const is of [isCollectiveError, isDeviceError, isMpiError]) assert.equal(is(other), false);
  }
});
