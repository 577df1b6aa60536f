/**
 * Long work in time slices, between which the event loop serves requests. The work is a generator that yields wherever it may
 * pause, so that the same code can also run at once.
 */

/** Work as a generator that yields wherever it may pause. */
export type Steps<T> = Generator<void, T, void>

/** Length of a slice. Together with a garbage collection it stays far below 50 ms. */
const SLICE_MS = 5

/** Does all of the work at once. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/** Does the work in slices. */
export async function inSlices<T>(steps: Steps<T>): Promise<T> {
  const slice = new TimeSlice()
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
    if (slice.isOver) await slice.next()
  }
}

/** One slice of time: the work pauses when it is over. */
export class TimeSlice {
  #end = performance.now() + SLICE_MS

  get isOver(): boolean {
    return performance.now() >= this.#end
  }

  /** Resolves in a later iteration of the event loop, in which the next slice begins. */
  async next(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    this.#end = performance.now() + SLICE_MS
  }
}
