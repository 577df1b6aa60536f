// CPU time and memory of a process tree, from /proc (proc_pid_stat(5)).
import { readdirSync, readFileSync } from 'node:fs'

/** The kernel counts CPU time in ticks of 10 ms, whatever its own clock (USER_HZ). */
const usPerTick = 10_000

/** The process and all below it. */
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

/** Fields from the state on; the name before them may hold blanks and brackets. */
function statOf(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return null
  }
}

/** Microseconds of CPU, user and system, used so far. */
export function cpuUs(pid: number): number {
  const ticks = tree(pid).map((each) => {
    const fields = statOf(each)
    return fields === null ? 0 : Number(fields[11]) + Number(fields[12])
  })
  return ticks.reduce((sum, each) => sum + each, 0) * usPerTick
}

/** Bytes: resident now, or at the highest. */
export function memory(pid: number, what: 'VmRSS' | 'VmHWM'): number {
  const kilobytes = tree(pid).map((each) => {
    try {
      return Number(new RegExp(`${what}:\\s+(\\d+)`).exec(readFileSync(`/proc/${each}/status`, 'utf8'))?.[1] ?? 0)
    } catch {
      return 0
    }
  })
  return kilobytes.reduce((sum, each) => sum + each, 0) * 1024
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
