/** Durations of Go, in which Traefik and KrakenD are written. */
import { duration } from './draft.ts'

const units: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 1e-6
}

/** Returns a duration such as `1h30m` or `1.5s` in milliseconds; a bare number counts seconds. Undefined for another text. */
export function goMs(text: string): number | undefined {
  if (/^\d+(?:\.\d+)?$/.test(text)) return Math.round(Number(text) * 1000)
  if (!/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+$/.test(text)) return undefined
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g)]
  return Math.round(parts.reduce((sum, [, number, unit]) => sum + Number(number) * units[unit!]!, 0))
}

/** Returns a duration of Go as one of the gateway, and other texts, such as variables, as they are. */
export function goDuration(text: string): string {
  const ms = goMs(text)
  return ms === undefined ? text : duration(ms)
}
