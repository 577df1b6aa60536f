import { readdirSync, statSync } from 'node:fs'

/** Folders in which the kernel lists the open descriptors of this process: Linux, then macOS and the BSDs. */
const folders = ['/proc/self/fd', '/dev/fd']
/** A listing of tens of thousands takes milliseconds: counting may take one part of the time in so many. */
const shareOfTime = 20

/**
 * The process's limit of open files (RLIMIT_NOFILE, `ulimit -n`); infinite where there is none. Node raises the soft
 * limit to the hard one at start.
 */
export function descriptorLimit(): number {
  const report = process.report as typeof process.report & { excludeNetwork: boolean }
  const { excludeNetwork } = report
  // The report would look up the names of all peers.
  report.excludeNetwork = true
  const { userLimits } = report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  report.excludeNetwork = excludeNetwork
  const soft = userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : Number.POSITIVE_INFINITY
}

/** The number of descriptors that are open; null where the system does not tell. */
function openDescriptors(): number | null {
  for (const folder of folders) {
    try {
      // From Linux 6.2 on the size of the folder is their number, and no descriptor is needed to ask.
      const { size } = statSync(folder)
      if (folder === folders[0] && size > 0) return size
      return readdirSync(folder).length
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EMFILE' || code === 'ENFILE') return Number.POSITIVE_INFINITY
    }
  }
  return null
}

/**
 * Watches how near the process is to its limit of descriptors. Counting takes microseconds, so it is only done when the
 * descriptors that were noted since the last count could have reached the limit. Far below the limit, a question is an
 * addition and a comparison.
 */
export class Descriptors {
  readonly limit: number
  readonly #count: () => number | null
  readonly #now: () => number
  #known = 0
  /** Until then the count is estimated. */
  #nextCountMs = Number.NEGATIVE_INFINITY
  /** Descriptors that may have been opened since they were counted. */
  #since = 0
  /** Descriptors that are about to be opened: announced in this event-loop iteration, and in the one before. */
  #fresh = 0
  #older = 0
  #aging: NodeJS.Immediate | null = null

  constructor(limit = descriptorLimit(), count = openDescriptors, now = () => performance.now()) {
    this.#count = count
    this.#now = now
    this.limit = count() === null ? Number.POSITIVE_INFINITY : limit
    // Counted at the first question.
    this.#known = this.limit
  }

  /** Notes that a descriptor has been opened. */
  noteOpen(): void {
    this.#since++
  }

  /**
   * Notes that a descriptor may be opened within the next two event-loop iterations. A count before that does not find
   * it.
   */
  announce(): void {
    this.#since++
    this.#fresh++
    this.#aging ??= setImmediate(this.#age)
  }

  readonly #age = () => {
    this.#older = this.#fresh
    this.#fresh = 0
    this.#aging = this.#older > 0 ? setImmediate(this.#age) : null
  }

  /** Returns whether fewer than `reserve` are left. */
  isShort(reserve: number): boolean {
    const most = this.limit - reserve
    if (this.#known + this.#since < most) return false
    const beganMs = this.#now()
    if (beganMs >= this.#nextCountMs) {
      this.#known = this.#count() ?? 0
      this.#since = this.#fresh + this.#older
      const endedMs = this.#now()
      this.#nextCountMs = endedMs + shareOfTime * (endedMs - beganMs)
    }
    return this.#known + this.#since >= most
  }
}
