/** CPU time of the stretches in which the event loop is held. Time that other processes take does not count. */

/** Milliseconds of CPU time of this thread. */
export function cpuMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** Runs work, and returns its result, the longest stretch between two iterations of the event loop, and the sum of all. */
export async function longestStretch<T>(work: () => Promise<T>): Promise<{ result: T; longest: number; all: number }> {
  let longest = 0
  const start = cpuMs()
  let last = start
  let next: NodeJS.Immediate
  const note = () => {
    const now = cpuMs()
    longest = Math.max(longest, now - last)
    last = now
  }
  const watch = () => {
    note()
    next = setImmediate(watch)
  }
  next = setImmediate(watch)
  try {
    const result = await work()
    note()
    return { result, longest, all: last - start }
  } finally {
    clearImmediate(next)
  }
}
