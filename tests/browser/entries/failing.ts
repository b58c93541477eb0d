/** Tests that fail in every way that a page must tell of. */

Deno.test("passes", () => {});
Deno.test("throws", () => {
  throw new TypeError("on purpose");
});
Deno.test("rejects", async () => {
  await Promise.reject(new TypeError("on purpose"));
});
Deno.test("leaves a rejection to nobody", async () => {
  Promise.reject(new TypeError("on purpose"));
  await new Promise((resolve) => setTimeout(resolve, 20));
});
Deno.test("throws where nobody catches", async () => {
  setTimeout(() => {
    throw new TypeError("on purpose");
  }, 0);
  await new Promise((resolve) => setTimeout(resolve, 20));
});
Deno.test.ignore("is ignored", () => {});
