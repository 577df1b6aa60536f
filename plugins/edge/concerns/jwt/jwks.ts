/**
 * Public keys for tokens, from a published key set (RFC 7517).
 *
 * The set is fetched at start, and again in the background when it is older than `maxAge`. An unknown key id causes one
 * fetch, shared by all requests that wait for it, and not sooner than `cooldown` after the last fetch: random key ids
 * cannot cause a flood of fetches. While the set cannot be fetched, the last good one is used, requests do not wait, and a
 * timer retries every second, so that tokens of a new key are accepted as soon as the server responds again.
 */
import type { JsonWebKeyInput, KeyObject } from 'node:crypto'
import { createPublicKey } from 'node:crypto'
import { createError } from '@fastify/error'
import type { FastifyBaseLogger } from 'fastify'
import type { Agent } from 'undici'
import { maskUrl } from '../../../../config/credentials.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import { asError } from '../../../thrown.ts'
import { algorithmsOf } from './algorithms.ts'
import { isMetadata, keySetUrl, metadataAsKeySet } from './discovery.ts'
import type { SignedText } from './jws-signature.ts'
import { isSignedBy } from './jws-signature.ts'
import { TokenInvalid } from './reasons.ts'

const undici = onFirstUse<typeof import('undici')>('undici')

const KeysUnavailable = createError('JW_KEYS_UNAVAILABLE', 'The keys to verify tokens are not available', 503)

export interface KeySetOptions {
  /** URL of the set; with `issuer`, of the metadata that name it. */
  url: string
  issuer?: string | undefined
  maxAge: number
  cooldown: number
  /** Longest time of one fetch, including the body. */
  timeoutMs?: number
  /** Pause between two fetches while they fail. */
  retryMs?: number
  /** Monotonic clock, in milliseconds. */
  now?: () => number
}

/** The parts of a token that select and check its key. */
export interface TokenOfKey extends SignedText {
  readonly header: { readonly kid?: unknown; readonly alg?: unknown }
}

export interface KeySet {
  /** Returns the PEM of the key that the token names or, if token or keys have no id, of the key that signed it. */
  key(token: TokenOfKey): Promise<string>
  /** Returns whether a key, as PEM, is still in the set. Starts a fetch if the set is old. */
  holds(pem: string): boolean
  /** Fetches the set, or waits for a fetch in progress. Never rejects. */
  refresh(): Promise<void>
  /** Returns whether the last fetch succeeded; null before the first has ended. */
  isUp(): boolean | null
  /** Returns the milliseconds since the last successful fetch; null before the first one. */
  age(): number | null
  close(): Promise<void>
}

interface Key {
  kid: string | undefined
  algorithms: readonly string[]
  key: KeyObject
  pem: string
}

const maxKeys = 100
const maxBody = 1024 * 1024
/** Keys that are tried for a token without a key id. */
const maxTried = 10

export function createKeySet(options: KeySetOptions, log: Pick<FastifyBaseLogger, 'info' | 'warn'>): KeySet {
  const { url, issuer, maxAge, cooldown, timeoutMs = 5000, retryMs = 1000, now = () => performance.now() } = options
  const shown = maskUrl(url)
  const agent = new (undici().Agent)({ connections: 1, connect: { timeout: timeoutMs } })
  const closing = new AbortController()
  let keys: readonly Key[] | null = null
  let pems: ReadonlySet<string> = new Set()
  let fetchedAt = Number.NEGATIVE_INFINITY
  let attemptedAt = Number.NEGATIVE_INFINITY
  let pending: Promise<void> | null = null
  let failing = false
  let leftOut = 0
  let retry: NodeJS.Timeout | undefined

  function refresh(): Promise<void> {
    if (closing.signal.aborted) return Promise.resolve()
    pending ??= fetchSet().finally(() => {
      pending = null
    })
    return pending
  }

  async function fetchSet(): Promise<void> {
    attemptedAt = now()
    clearTimeout(retry)
    try {
      const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(timeoutMs)])
      const document = await download(url, agent, signal)
      const isSet = issuer === undefined
      const set = parseKeys(isSet ? document : await download(keySetUrl(document, issuer, url), agent, signal))
      keys = set.keys
      pems = new Set(keys.map(({ pem }) => pem))
      fetchedAt = now()
      if (set.leftOut > 0 && set.leftOut !== leftOut) {
        log.warn(
          { url: shown, keys: maxKeys, leftOut: set.leftOut },
          `key set has more than ${maxKeys} keys: the rest is ignored`
        )
      }
      leftOut = set.leftOut
      if (failing) log.info({ url: shown, keys: keys.length }, 'key set fetched again')
      failing = false
    } catch (error) {
      if (closing.signal.aborted) return
      if (!failing) {
        const consequence = keys === null ? 'tokens cannot be verified' : 'the previous one stays in use'
        log.warn({ url: shown, err: asError(error) }, `cannot fetch the key set: ${consequence}; retrying every second`)
      }
      failing = true
      retry = setTimeout(refresh, retryMs)
      retry.unref()
    }
  }

  /** Fetches a newer set that may have a missing key; null during the cooldown. */
  function renewal(): Promise<void> | null {
    return pending ?? (now() - attemptedAt >= cooldown ? refresh() : null)
  }

  function renewIfOld(): void {
    if (!failing && now() - fetchedAt >= maxAge) void renewal()
  }

  return {
    refresh,
    holds(pem) {
      renewIfOld()
      return pems.has(pem)
    },
    isUp: () => (failing ? false : keys === null ? null : true),
    age: () => (keys === null ? null : now() - fetchedAt),
    async key(token) {
      const { kid } = token.header
      if (kid !== undefined && typeof kid !== 'string') throw new TokenInvalid('jwt_malformed')
      if (keys === null && !failing) await refresh()
      if (keys === null) throw new KeysUnavailable()
      renewIfOld()
      const found = pick(keys, token)
      if (found !== null) return found
      // The set has a key with this id, so a newer set would not help.
      if (keys.some((key) => key.kid !== undefined && key.kid === kid)) throw new TokenInvalid('jwt_algorithm')
      if (!failing) await renewal()
      const renewed = pick(keys, token)
      if (renewed !== null) return renewed
      if (failing) throw new KeysUnavailable()
      throw new TokenInvalid('jwt_key')
    },
    async close() {
      clearTimeout(retry)
      closing.abort()
      await pending
      await agent.destroy()
    }
  }
}

/**
 * Returns the PEM of the key for a token; null if the set has none. Key ids are optional in tokens and keys (RFC 7515,
 * 4.1.4; RFC 7517, 4.5): if one of them has no id, the key is the one that verifies the signature.
 */
function pick(keys: readonly Key[], token: TokenOfKey): string | null {
  const { kid, alg } = token.header
  const algorithm = String(alg)
  const named = kid !== undefined && keys.some((key) => key.kid === kid)
  const isCandidate = (key: Key) => kid === undefined || key.kid === (named ? kid : undefined)
  const fitting = keys.filter((key) => isCandidate(key) && key.algorithms.includes(algorithm))
  if (named && fitting.length < 2) return fitting[0]?.pem ?? null
  return fitting.slice(0, maxTried).find(({ key }) => isSignedBy(key, algorithm, token))?.pem ?? null
}

async function download(url: string, dispatcher: Agent, signal: AbortSignal): Promise<unknown> {
  const { username, password } = new URL(url)
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  const headers = {
    accept: 'application/jwk-set+json, application/json',
    ...(credentials !== ':' && { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` })
  }
  // Requests are minutes apart: do not keep the connection.
  const response = await undici().request(url, { dispatcher, signal, headers, reset: true })
  if (response.statusCode !== 200) {
    await response.body.dump({ limit: 0, signal }).catch(() => {})
    throw new Error(`status ${response.statusCode}`)
  }
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBody) throw new Error(`more than ${maxBody} bytes`)
    chunks.push(chunk)
  }
  return JSON.parse(Buffer.concat(chunks).toString())
}

function parseKeys(document: unknown): { keys: readonly Key[]; leftOut: number } {
  const list = (document as { keys?: unknown } | null)?.keys
  if (!Array.isArray(list)) throw new Error(isMetadata(document) ? metadataAsKeySet : 'not a key set')
  const keys: Key[] = []
  let read = 0
  for (const jwk of list) {
    read++
    const key = parseKey(jwk)
    if (key !== undefined && keys.push(key) === maxKeys) break
  }
  // Using an empty set would refuse all tokens.
  if (keys.length === 0) throw new Error('no usable key in the set')
  return { keys, leftOut: list.length - read }
}

/** Returns a key; undefined if it does not verify signatures, cannot be parsed or is not supported. */
function parseKey(jwk: unknown): Key | undefined {
  if (typeof jwk !== 'object' || jwk === null) return undefined
  const { kty, n, e, crv, x, y, kid, use, key_ops: operations, alg } = jwk as Record<string, unknown>
  if (use !== undefined && use !== 'sig') return undefined
  if (Array.isArray(operations) && !operations.includes('verify')) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  try {
    // Picks the public members: a private part that was published by mistake is ignored.
    const key = createPublicKey({ format: 'jwk', key: { kty, n, e, crv, x, y } as JsonWebKeyInput['key'] })
    const algorithms = algorithmsOf(key).filter((algorithm) => alg === undefined || algorithm === alg)
    if (algorithms.length === 0) return undefined
    return { kid, algorithms, key, pem: key.export({ type: 'spki', format: 'pem' }).toString() }
  } catch {
    return undefined
  }
}
