import { readdirSync, statSync } from 'node:fs'

/** Folders in which the kernel lists this process's open descriptors: on Linux; on macOS and the BSDs. */
const folders = ['/proc/self/fd', '/dev/fd']
/** Limits counting to 1/20 of the time: a listing of tens of thousands of descriptors takes milliseconds. */
const shareOfTime = 20

/**
 * Returns the process's limit of open files (RLIMIT_NOFILE, `ulimit -n`); Infinity if there is none. Node raises the soft
 * limit to the hard limit at start.
 */
export function descriptorLimit(): number {
  const report = process.report as typeof process.report & { excludeNetwork: boolean }
  const { excludeNetwork } = report
  // Otherwise the report would resolve the host names of all peers.
  report.excludeNetwork = true
  const { userLimits } = report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  report.excludeNetwork = excludeNetwork
  const soft = userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : Number.POSITIVE_INFINITY
}

/** Returns the number of open descriptors; null if the system does not report it. */
function openDescriptors(): number | null {
  for (const folder of folders) {
    try {
      // Since Linux 6.2 the size of the folder is the number of descriptors, and stat needs no descriptor.
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
 * Tells how close the process is to its limit of descriptors. Counting takes microseconds, so it happens only when the
 * descriptors opened since the last count could have reached the limit. Far below the limit, a check is an addition and a
 * comparison.
 */
export class Descriptors {
  readonly limit: number
  readonly #count: () => number | null
  readonly #now: () => number
  #known = 0
  /** Time before which the count is estimated. */
  #nextCountMs = Number.NEGATIVE_INFINITY
  /** Descriptors that may have been opened since they were counted. */
  #since = 0
  /** Descriptors that may be opened soon: announced in this event-loop iteration, and in the previous one. */
  #fresh = 0
  #older = 0
  #aging: NodeJS.Immediate | null = null

  constructor(limit = descriptorLimit(), count = openDescriptors, now = () => performance.now()) {
    this.#count = count
    this.#now = now
    this.limit = count() === null ? Number.POSITIVE_INFINITY : limit
    // Makes the first check count.
    this.#known = this.limit
  }

  /** Records an opened descriptor. */
  noteOpen(): void {
    this.#since++
  }

  /**
   * Records that a descriptor may be opened within the next two event-loop iterations, so that a count before then
   * includes it.
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

  /** Returns whether fewer than `reserve` descriptors are left. */
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
