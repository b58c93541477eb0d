import assert from "node:assert/strict";
import { DeviceError, referenceDevice, tensor } from "../mod.ts";
import { deviceSuite } from "./device_suite.ts";
import { librarySuite } from "./library_suite.ts";
import { queuedKit, referenceKit } from "./reference_kit.ts";

deviceSuite({ ...referenceKit, giants: "narrow" });
deviceSuite(queuedKit);
librarySuite(referenceKit);
librarySuite(queuedKit);

Deno.test("referenceDevice() says so where the runtime has no Float16Array", () => {
  const descriptor = Object.getOwnPropertyDescriptor(globalThis, "Float16Array");
  assert(descriptor);
  try {
    Reflect.deleteProperty(globalThis, "Float16Array");
    const device = referenceDevice();
    assert.equal(device.info.float16, false);
    assert.throws(
      () => tensor(device, [1, 2], [2, 1], { dtype: "float16" }),
      (error) => {
        assert(error instanceof DeviceError);
        assert.equal(error.code, "unsupported");
        assert.match(error.message, /float16.*no Float16Array: use float32/);
        return true;
      },
    );
    const { dtype } = device.describe(tensor(device, [1, 2], [2, 1]).data);
    assert.equal(dtype, "float32");
  } finally {
    Object.defineProperty(globalThis, "Float16Array", descriptor);
  }
});

Deno.test("arrays of one reference device are refused by another", () => {
  const [a, b] = [referenceDevice(), referenceDevice()];
  const array = a.upload(Float32Array.of(1));
  assert(!b.owns(array));
  assert.throws(() => b.describe(array), /must be one of this device/);
  assert.throws(() => b.free(array), /must be one of this device/);
  assert(a.owns(array));
});

Deno.test("moments are no vector, and a vector is no moments", () => {
  const device = referenceDevice();
  const vector = device.upload(Float32Array.of(1, 2, 3));
  const input = tensor(device, [1, 2], [2, 1]);
  assert.throws(
    () =>
      device.normalize({
        input,
        statistics: { source: "batch", moments: vector },
        affine: { weight: null, bias: null, eps: 0 },
      }),
    /Cannot use the array as moments: it holds the elements/,
  );
});
