/**
 * Token responses whose ID token could not be verified, since the provider's keys were unavailable. A code and a refresh token
 * are used once, so the next try gets the same response; otherwise the login would fail, and the session end.
 */
import { hash } from 'node:crypto'
import { ByteLru } from '../../byte-lru.ts'

/** Memory for responses, in bytes. */
const keptBytes = 4 * 1024 * 1024

interface Kept {
  readonly body: string
  readonly receivedMs: number
}

export class TokenResponses {
  readonly #kept = new ByteLru<Kept>(keptBytes)
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /** Returns the response to a request with this body; null if there is none. */
  get(request: string): Response | null {
    const kept = this.#kept.get(keyOf(request))
    if (kept === undefined) return null
    const content = JSON.parse(kept.body) as { expires_in?: unknown }
    const { expires_in: seconds } = content
    const passed = Math.ceil((this.#now() - kept.receivedMs) / 1000)
    // The access token has been valid since the response came.
    const left = typeof seconds === 'number' ? { expires_in: Math.max(1, seconds - passed) } : {}
    return Response.json({ ...content, ...left })
  }

  /** Keeps a response, which is JSON, for the next try. */
  keep(request: string, body: string): void {
    this.#kept.set(keyOf(request), { body, receivedMs: this.#now() }, body.length)
  }

  delete(request: string): void {
    this.#kept.delete(keyOf(request))
  }
}

/** Requests have secrets. */
const keyOf = (request: string): string => hash('sha256', request, 'base64')
