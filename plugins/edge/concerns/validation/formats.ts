/**
 * Formats of JSON Schema and OpenAPI. Each takes time linear in the text: texts are bounded in length before a regular
 * expression sees them, and no expression has two repetitions that can match the same characters.
 */
import { isIPv4, isIPv6 } from 'node:net'

/** Longest text of a format whose values are short. */
const longest = 2048

const within =
  (test: (text: string) => boolean, most = longest) =>
  (text: string): boolean =>
    text.length <= most && test(text)

const matching = (expression: RegExp, most = longest) => within((text) => expression.test(text), most)

const days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

function isDate(text: string): boolean {
  const [, year, month, day] = (/^(\d{4})-(\d\d)-(\d\d)$/.exec(text) ?? []).map(Number)
  if (year === undefined || month! < 1 || month! > 12) return false
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return day! >= 1 && day! <= (month === 2 && isLeap ? 29 : days[month! - 1]!)
}

function isTime(text: string): boolean {
  const parts = /^(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[zZ]|([+-])(\d\d):(\d\d))$/.exec(text)
  if (parts === null) return false
  const [hour, minute, second] = parts.slice(1, 4).map(Number)
  const [zoneHour, zoneMinute] = parts.slice(5, 7).map((each) => Number(each ?? 0))
  if (hour! > 23 || minute! > 59 || second! > 60 || zoneHour! > 23 || zoneMinute! > 59) return false
  if (second! < 60) return true
  // A leap second is the last of a day in UTC.
  const sign = parts[4] === '-' ? 1 : -1
  const utc = hour! * 60 + minute! + sign * (zoneHour! * 60 + zoneMinute!)
  return (utc + 2 * 1440) % 1440 === 1439
}

const isDateTime = (text: string) =>
  /^[tT ]$/.test(text[10] ?? '') && isDate(text.slice(0, 10)) && isTime(text.slice(11))

const label = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/
const isHostname = (text: string) => text.length <= 253 && text.split('.').every((each) => label.test(each))

function isEmail(text: string): boolean {
  const at = text.lastIndexOf('@')
  const local = text.slice(0, at)
  if (at < 1 || local.length > 64 || !isHostname(text.slice(at + 1))) return false
  return local.split('.').every((each) => /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+$/.test(each))
}

const uriCharacters = /^(?:[A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=]|%[\dA-Fa-f]{2})*$/
const isUriReference = (text: string) => uriCharacters.test(text)
const isUri = (text: string) => /^[A-Za-z][A-Za-z0-9+.-]*:/.test(text) && isUriReference(text)

function isBase64(text: string): boolean {
  const end = text.endsWith('==') ? text.length - 2 : text.endsWith('=') ? text.length - 1 : text.length
  if (text.length % 4 !== 0) return false
  for (let i = 0; i < end; i++) {
    const code = text.charCodeAt(i)
    const isLetter = (code >= 65 && code <= 90) || (code >= 97 && code <= 122)
    if (!isLetter && !(code >= 48 && code <= 57) && code !== 43 && code !== 47) return false
  }
  return true
}

const isWithin = (limit: bigint) => (value: number) =>
  Number.isInteger(value) && value >= -Number(limit) && value <= Number(limit - 1n)

const anything = () => true

/** Formats by name, each for values of one type. */
export const formats: Readonly<
  Record<
    string,
    | true
    | { type: 'string'; validate: (text: string) => boolean }
    | { type: 'number'; validate: (value: number) => boolean }
  >
> = {
  ...Object.fromEntries(
    Object.entries({
      date: within(isDate),
      time: within(isTime),
      'date-time': within(isDateTime),
      duration: matching(
        /^P(?!$)(?:\d+W|(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)$/,
        64
      ),
      email: matching(/^[^@]*@/, 320) && within(isEmail, 320),
      hostname: within(isHostname),
      ipv4: within((text) => isIPv4(text)),
      ipv6: within((text) => isIPv6(text) && !text.includes('%')),
      uri: within(isUri, 8192),
      'uri-reference': within(isUriReference, 8192),
      uuid: matching(/^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i, 36),
      'json-pointer': matching(/^(?:\/(?:[^~/]|~[01])*)*$/),
      byte: isBase64
    }).map(([name, validate]) => [name, { type: 'string' as const, validate }])
  ),
  int32: { type: 'number', validate: isWithin(2n ** 31n) },
  int64: { type: 'number', validate: isWithin(2n ** 63n) },
  float: { type: 'number', validate: anything },
  double: { type: 'number', validate: anything },
  password: true,
  binary: true
}
