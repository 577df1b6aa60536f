/**
 * Long work in slices of time, between which the event loop serves requests. Such work is a generator that yields wherever
 * it may pause, so that one implementation serves both those who need its result at once and those who can wait.
 */

/** Work that yields wherever it may pause. */
export type Steps<T> = Generator<void, T, void>

/** Time after which the event loop gets an iteration. With a garbage collection on top it stays far below 50 ms. */
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

/** The time that work may take until it pauses. */
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
