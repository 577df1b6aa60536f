/**
 * Public keys of tokens, and the key set (RFC 7517) that publishes them.
 *
 * A set is used for `maxAge` and then fetched again in the background, the old one serving meanwhile; when it
 * cannot be fetched, the last good set goes on serving. A key id that the set does not have brings one fetch,
 * shared by all who wait for it and never sooner than `cooldown` after the last: random key ids cost nothing.
 */
import type { JsonWebKeyInput, KeyObject } from 'node:crypto'
import { createPublicKey } from 'node:crypto'
import { createError } from '@fastify/error'
import type { FastifyBaseLogger } from 'fastify'
import { Agent, request } from 'undici'
import { maskCredentials } from '../../config/credentials.ts'

export const KeysUnavailable = createError('JW_KEYS_UNAVAILABLE', 'The keys to verify tokens are not available', 503)
export const NoSuchKey = createError('JW_TOKEN_INVALID', 'No key fits the token: %s', 401)

export interface KeySetOptions {
  url: string
  maxAge: number
  cooldown: number
  /** Bound of one fetch, body included. */
  timeoutMs?: number
  /** Milliseconds of a clock that never jumps. */
  now?: () => number
}

export interface KeySet {
  /** The PEM of the one key that fits a token's header. */
  key(header: { kid?: unknown; alg?: unknown }): Promise<string>
  /** Fetches the set, unless that is under way. Never fails. */
  refresh(): Promise<void>
  close(): Promise<void>
}

interface Key {
  kid: string | undefined
  algorithms: readonly string[]
  pem: string
}

const maxKeys = 100
const maxBody = 1024 * 1024
/** Until there is any set at all, the cooldown is no longer than this. */
const firstCooldown = 1000

const rsa = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
export const asymmetric: readonly string[] = [...rsa, 'ES256', 'ES384', 'ES512', 'EdDSA']
const curves: Record<string, string> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }

/** The algorithms that a public key can verify; none if it is of a kind that is not supported or too weak. */
export function algorithmsOf(key: KeyObject): readonly string[] {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      // RFC 7518, section 3.3
      return (key.asymmetricKeyDetails?.modulusLength ?? 0) < 2048 ? [] : rsa
    case 'ec': {
      const algorithm = curves[key.asymmetricKeyDetails?.namedCurve ?? '']
      return algorithm === undefined ? [] : [algorithm]
    }
    case 'ed25519':
      return ['EdDSA']
    default:
      return []
  }
}

export function createKeySet(options: KeySetOptions, log: Pick<FastifyBaseLogger, 'info' | 'warn'>): KeySet {
  const { url, maxAge, cooldown, timeoutMs = 5000, now = () => performance.now() } = options
  const shown = maskCredentials(url)
  const agent = new Agent({ connections: 1, connect: { timeout: timeoutMs } })
  const closing = new AbortController()
  let keys: readonly Key[] | null = null
  let fetchedAt = Number.NEGATIVE_INFINITY
  let attemptedAt = Number.NEGATIVE_INFINITY
  let pending: Promise<void> | null = null
  let failing = false

  function refresh(): Promise<void> {
    if (closing.signal.aborted) return Promise.resolve()
    pending ??= fetchSet().finally(() => {
      pending = null
    })
    return pending
  }

  async function fetchSet(): Promise<void> {
    attemptedAt = now()
    try {
      const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(timeoutMs)])
      keys = parseKeys(await download(url, agent, signal))
      fetchedAt = now()
      if (failing) log.info({ url: shown }, 'the key set can be fetched again')
      failing = false
    } catch (error) {
      if (!failing && !closing.signal.aborted) {
        log.warn(
          { url: shown, err: error },
          keys ? 'key set not fetched; the last one stays in use' : 'key set not fetched'
        )
      }
      failing = true
    }
  }

  /** A fetch if one may be made now, or the one under way; null while cooling down. */
  function allowedRefresh(): Promise<void> | null {
    const pause = keys === null ? Math.min(cooldown, firstCooldown) : cooldown
    return pending ?? (now() - attemptedAt >= pause ? refresh() : null)
  }

  return {
    refresh,
    async key({ kid, alg }) {
      if (kid !== undefined && typeof kid !== 'string') throw new NoSuchKey('the key id is not a string')
      if (keys === null) await allowedRefresh()
      if (keys === null) throw new KeysUnavailable()
      if (now() - fetchedAt >= maxAge) void allowedRefresh()
      if (!knows(keys, kid)) await allowedRefresh()
      return pick(keys, kid, alg)
    },
    async close() {
      closing.abort()
      await pending
      await agent.destroy()
    }
  }
}

/** Whether the set has something to say about the key id: if so, another fetch would not help. */
function knows(keys: readonly Key[], kid: string | undefined): boolean {
  return kid === undefined || keys.some((key) => key.kid === kid)
}

function pick(keys: readonly Key[], kid: string | undefined, alg: unknown): string {
  const fitting = keys.filter((key) => key.algorithms.includes(String(alg)) && (kid === undefined || key.kid === kid))
  const [key] = fitting
  if (key === undefined) throw new NoSuchKey('unknown key id or unfit algorithm')
  if (kid === undefined && fitting.length > 1) throw new NoSuchKey('it names none and several would do')
  return key.pem
}

async function download(url: string, dispatcher: Agent, signal: AbortSignal): Promise<unknown> {
  const headers = { accept: 'application/jwk-set+json, application/json' }
  // One request in minutes: its connection is not kept.
  const response = await request(url, { dispatcher, signal, headers, reset: true })
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

function parseKeys(document: unknown): readonly Key[] {
  const list = (document as { keys?: unknown } | null)?.keys
  if (!Array.isArray(list)) throw new Error('not a key set')
  const keys: Key[] = []
  for (const jwk of list) {
    const key = parseKey(jwk)
    if (key !== undefined && keys.push(key) === maxKeys) break
  }
  // To believe it would lock everyone out.
  if (keys.length === 0) throw new Error('no usable key in the set')
  return keys
}

/** Undefined for what does not verify signatures, cannot be read or is not supported. */
function parseKey(jwk: unknown): Key | undefined {
  if (typeof jwk !== 'object' || jwk === null) return undefined
  const { kty, n, e, crv, x, y, kid, use, key_ops: operations, alg } = jwk as Record<string, unknown>
  if (use !== undefined && use !== 'sig') return undefined
  if (Array.isArray(operations) && !operations.includes('verify')) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  try {
    // Only the public members: a private part published by mistake is not touched.
    const key = createPublicKey({ format: 'jwk', key: { kty, n, e, crv, x, y } as JsonWebKeyInput['key'] })
    const algorithms = algorithmsOf(key).filter((algorithm) => alg === undefined || algorithm === alg)
    if (algorithms.length === 0) return undefined
    return { kid, algorithms, pem: key.export({ type: 'spki', format: 'pem' }).toString() }
  } catch {
    return undefined
  }
}
