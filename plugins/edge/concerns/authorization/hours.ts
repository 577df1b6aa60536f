/** Days and times of day of rules, by the wall clock of a time zone. */
import type { TimeOptions } from './options.ts'
import { days } from './options.ts'

const minuteMs = 60_000
const dayNames: readonly string[] = days

interface Moment {
  /** 0 is Monday. */
  readonly day: number
  /** Minute of the day. */
  readonly minute: number
}

/** The wall clock of a time zone. Zones differ by whole minutes, so a minute is computed once. */
class WallClock {
  readonly #format: Intl.DateTimeFormat
  #minute = Number.NaN
  #moment: Moment = { day: 0, minute: 0 }

  /** @throws a RangeError for an unknown zone. */
  constructor(timeZone: string) {
    const twoDigits = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const
    this.#format = new Intl.DateTimeFormat('en-US', { timeZone, weekday: 'short', ...twoDigits })
  }

  at(date: number): Moment {
    const minute = Math.floor(date / minuteMs)
    if (minute === this.#minute) return this.#moment
    const parts = Object.fromEntries(this.#format.formatToParts(date).map(({ type, value }) => [type, value]))
    const day = dayNames.indexOf(parts.weekday!.toLowerCase())
    this.#moment = { day, minute: Number(parts.hour) * 60 + Number(parts.minute) }
    this.#minute = minute
    return this.#moment
  }
}

export const isZone = (zone: string): boolean => {
  try {
    return new WallClock(zone) !== null
  } catch {
    return false
  }
}

export function minuteOf(text: string): number {
  const [hours = 0, minutes = 0] = text.split(':').map(Number)
  return hours * 60 + minutes
}

/** Returns the test for a time, in milliseconds since 1970. */
export function timeTest({ days: named, from, to, zone }: TimeOptions): (date: number) => boolean {
  const clock = new WallClock(zone)
  const [begin, end] = [minuteOf(from), minuteOf(to)]
  const isOn = days.map((day) => named === undefined || named.includes(day))
  return (date) => {
    const { day, minute } = clock.at(date)
    if (begin < end) return isOn[day]! && minute >= begin && minute < end
    // Over midnight: the time has begun today or yesterday.
    return minute >= begin ? isOn[day]! : minute < end && isOn[(day + 6) % 7]!
  }
}
