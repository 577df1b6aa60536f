/**
 * Stored responses as values in Redis. A value is text for the scripts (public or not, time), the SHA-256 of key and value,
 * the header section as JSON, and the body. A value that is damaged, that belongs to another key or that has another form is
 * taken for absent.
 */
import { createHash } from 'node:crypto'
import { hopByHop } from '../../../http-syntax.ts'
import { epochLength, flagAndTimeLength, prefixLength, sequenceLength } from './redis-scripts.ts'
import type { StoredHead, StoredResponse } from './stored.ts'

const digestLength = 32
const sizeLength = 8
const fixed = flagAndTimeLength + digestLength + sizeLength

/** Returns the value of a response, without the prefix that the script adds. */
export function encoded({ body, ...head }: StoredResponse): Buffer {
  const json = Buffer.from(JSON.stringify(head))
  const value = Buffer.allocUnsafe(fixed + json.length + body.length)
  value.write(`${head.isPublic ? 'P' : '-'}${String(head.storedAt).padStart(flagAndTimeLength - 1, '0')}`, 0, 'latin1')
  value.write(String(json.length).padStart(sizeLength, '0'), flagAndTimeLength + digestLength, 'latin1')
  json.copy(value, fixed)
  body.copy(value, fixed + json.length)
  digestOf(head.key, value).copy(value, flagAndTimeLength)
  return value
}

export interface DecodedValue {
  /** Number of the last purge when the fetch began. */
  readonly sequence: string
  readonly stored: StoredResponse
}

/** Returns the response of a value with its prefix; null if it is not one that this release has stored under one of the keys. */
export function decoded(given: Buffer, keys: readonly string[]): DecodedValue | null {
  const value = given.subarray(prefixLength)
  if (value.length < fixed) return null
  const size = Number(value.toString('latin1', flagAndTimeLength + digestLength, fixed))
  if (!Number.isSafeInteger(size) || fixed + size > value.length) return null
  const digest = value.subarray(flagAndTimeLength, flagAndTimeLength + digestLength)
  const key = keys.find((each) => digestOf(each, value).equals(digest))
  if (key === undefined) return null
  const head = headOf(value.toString('utf8', fixed, fixed + size))
  if (head === null || head.key !== key) return null
  const sequence = given.toString('latin1', epochLength, epochLength + sequenceLength)
  return { sequence, stored: { ...head, body: value.subarray(fixed + size) } }
}

function digestOf(key: string, value: Buffer): Buffer {
  const hash = createHash('sha256').update(key)
  return hash
    .update(value.subarray(0, flagAndTimeLength))
    .update(value.subarray(flagAndTimeLength + digestLength))
    .digest()
}

function headOf(json: string): StoredHead | null {
  try {
    const head = JSON.parse(json) as StoredHead
    return isHead(head) ? head : null
  } catch {
    return null
  }
}

const texts = ['key', 'route', 'resource', 'url', 'path', 'host', 'varyValues', 'text'] as const
const numbers = ['status', 'storedAt', 'initialAge', 'lifetime', 'whileRevalidate', 'ifError'] as const
const booleans = ['isPublic', 'noCache', 'mustRevalidate'] as const

const isTexts = (value: unknown) => Array.isArray(value) && value.every((each) => typeof each === 'string')

function isHead(head: StoredHead): boolean {
  return (
    typeof head === 'object' &&
    head !== null &&
    texts.every((name) => typeof head[name] === 'string') &&
    numbers.every((name) => Number.isFinite(head[name])) &&
    isStatus(head.status) &&
    booleans.every((name) => typeof head[name] === 'boolean') &&
    isTexts(head.tags) &&
    isTexts(head.varyNames) &&
    (head.instance === null || typeof head.instance === 'string') &&
    typeof head.headers === 'object' &&
    head.headers !== null &&
    Object.entries(head.headers).every(isField)
  )
}

const isStatus = (status: number) => Number.isInteger(status) && status >= 200 && status <= 599

/** Returns whether a field can be sent: with others, a forged value could split the response, or end the connection. */
function isField([name, value]: [string, unknown]): boolean {
  const values = Array.isArray(value) ? value : [value]
  return (
    /^[!#$%&'*+.^_`|~a-z0-9-]+$/.test(name) &&
    !hopByHop.has(name) &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a field must not have
    values.every((each) => typeof each === 'string' && !/[\0-\x08\x0a-\x1f\x7f]|[^\0-\xff]/.test(each))
  )
}
