// CPU time and memory of a process tree, from /proc (proc_pid_stat(5)).
import { readdirSync, readFileSync } from 'node:fs'

/** The kernel reports CPU time in ticks of 10 ms (USER_HZ), whatever its own clock. */
const usPerTick = 10_000

/** Returns the process and its descendants. */
function tree(pid: number): number[] {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const fields = statOf(Number(name))
      return fields === null ? [] : [[Number(name), Number(fields[1])] as const]
    })
  const found = [pid]
  for (const parent of found) found.push(...parents.filter(([, of]) => of === parent).map(([child]) => child))
  return found
}

/** Returns the fields from the state on. The name before them may contain blanks and brackets. */
function statOf(pid: number): string[] | null {
  const text = read(`/proc/${pid}/stat`)
  return text === null ? null : text.slice(text.lastIndexOf(')') + 2).split(' ')
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null // the process has ended
  }
}

/** Returns the microseconds of CPU, user and system, that the process tree has used so far. */
export function cpuUs(pid: number): number {
  return tree(pid).reduce((sum, each) => sum + (scheduledUs(each) ?? ticksUs(each)), 0)
}

/** Sums the scheduler's statistics of each thread, which are in nanoseconds. Not every kernel has them. */
function scheduledUs(pid: number): number | null {
  if (read(`/proc/${pid}/schedstat`) === null) return null
  const threads = readdirSync(`/proc/${pid}/task`)
  const ns = threads.map((thread) => Number(read(`/proc/${pid}/task/${thread}/schedstat`)?.split(' ')[0] ?? 0))
  return ns.reduce((sum, each) => sum + each, 0) / 1000
}

function ticksUs(pid: number): number {
  const fields = statOf(pid)
  return fields === null ? 0 : (Number(fields[11]) + Number(fields[12])) * usPerTick
}

/** Returns the microseconds that a core was busy, or stolen by another guest of the same host. */
export function coreBusyUs(core: number): number {
  const fields = new RegExp(`^cpu${core} (.*)$`, 'm')
    .exec(readFileSync('/proc/stat', 'utf8'))![1]!
    .split(' ')
    .map(Number)
  const [user, nice, system, , , irq, softirq, steal] = fields as [number, number, number, ...number[]]
  return (user + nice + system + (irq ?? 0) + (softirq ?? 0) + (steal ?? 0)) * usPerTick
}

/** Returns bytes: the current resident memory, or its peak. */
export function memory(pid: number, what: 'VmRSS' | 'VmHWM'): number {
  const kilobytes = tree(pid).map((each) =>
    Number(new RegExp(`${what}:\\s+(\\d+)`).exec(read(`/proc/${each}/status`) ?? '')?.[1] ?? 0)
  )
  return kilobytes.reduce((sum, each) => sum + each, 0) * 1024
}

/** Median and interquartile range. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => {
    const place = (sorted.length - 1) * share
    const below = sorted[Math.floor(place)]!
    return below + (sorted[Math.ceil(place)]! - below) * (place % 1)
  }
  return { median: at(0.5), low: at(0.25), high: at(0.75) }
}
