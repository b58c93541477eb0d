/** The goals on a GPU; no speed is judged from a software adapter's figures. */

import { atLeast, atMost, type Seen, type Verdict } from "../goals.ts";
import { speedOf, titleOfCase, type Work } from "./cases.ts";
import { copySpeed, type MeasuredCase, type MeasuredGpu, timesOf } from "./measured.ts";
import { SYNC_KERNELS } from "./torch.ts";

export function verdicts(measured: MeasuredGpu): readonly Verdict[] {
  const cases = measured.software ? [] : measured.cases;
  const plain = cases.filter(({ ours }) => !ours.case.fused);
  const seen = (
    among: readonly MeasuredCase[],
    works: readonly Work[],
    value: (one: MeasuredCase, work: Work) => number | undefined,
  ) =>
    among.flatMap((one) =>
      works.flatMap((work): Seen[] => {
        const found = value(one, work);
        const where = `${titleOfCase(one.ours.case)}, ${work}`;
        return found === undefined ? [] : [{ value: found, where }];
      })
    );
  const share = (one: MeasuredCase, work: Work) =>
    speedOf(one.ours.case, work, timesOf(one)[work]) / copySpeed(one);
  const both = (times: Partial<Readonly<Record<Work, number>>> | undefined) =>
    times?.forward === undefined || times.backward === undefined
      ? undefined
      : times.forward + times.backward;
  const faster = (row: string) => (one: MeasuredCase) => {
    const [theirs, mine] = [both(one.torch?.[row]), both(timesOf(one))];
    return theirs === undefined || mine === undefined ? undefined : theirs / mine;
  };
  const sixtyFour = plain.filter(({ ours: { case: { batch: { shape, format } } } }) =>
    shape[1] === 64 && format === "channelsFirst"
  );
  // Software is as exact as others.
  const exact = measured.cases.filter(({ ours }) => ours.case.dtype === "float32");
  return [
    atLeast(
      "forward and backward each at least 85 % of the copy's bandwidth",
      seen(plain, ["forward", "backward"], share),
      0.85,
    ),
    atLeast(
      "forward and backward at least 1.5 times as fast as SyncBatchNorm's kernels, channels first, C = 64",
      seen(sixtyFour, ["forward"], faster(SYNC_KERNELS)),
      1.5,
    ),
    ...["F.batch_norm, cuDNN", "F.batch_norm"].map((row) =>
      atLeast(
        `forward and backward at least as fast as ${row} everywhere`,
        seen(plain, ["forward"], faster(row)),
        1,
      )
    ),
    atMost(
      "y and dx within 2e-6 of float64 at mean 1e3, std 1, float32",
      exact.flatMap(({ ours: { case: one, errors } }): Seen[] => [
        { value: errors.y, where: `y of ${titleOfCase(one)}` },
        { value: errors.dx, where: `dx of ${titleOfCase(one)}` },
      ]),
      2e-6,
    ),
  ];
}
