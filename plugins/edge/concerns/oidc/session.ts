/** Sessions of users, and where they are stored: in cookies, or in Redis. */
import { hash, randomBytes } from 'node:crypto'
import { ByteLru } from '../../byte-lru.ts'
import { OidcFailure } from './failures.ts'
import type { SessionOptions } from './options.ts'
import type { Claims } from './packing.ts'
import { packed, unpacked } from './packing.ts'
import type { Seal } from './seal.ts'

/** A session. Requests share it: it is frozen. Times are milliseconds since 1970. */
export interface Session {
  /** Random; new with each login. */
  readonly id: string
  readonly claims: Claims
  readonly started: number
  /** Time of the last request, at the accuracy of a tenth of `idleTimeout`. */
  readonly seen: number
  readonly accessToken?: string
  /** Time at which the access token was issued, and its expiry. */
  readonly issued?: number
  readonly expires?: number
  readonly refreshToken?: string
  /** For the logout at the provider. */
  readonly idToken?: string
}

export const newId = (): string => randomBytes(32).toString('base64url')

export interface SessionStore {
  /** Starts to connect. */
  connect(): void
  /** Returns the session for the value of a cookie; null if there is none. */
  load(value: string): Promise<Session | null>
  /** Stores a session; returns the value of its cookie. One that is not new must still exist. */
  save(session: Session, isNew: boolean): Promise<string>
  /** Ends a session. */
  end(session: Session): Promise<void>
  /**
   * Ends the sessions of a user, or those of a session at the provider. Returns false, and ends none, if it has ended some for
   * the logout token with this `jti` before.
   */
  endAll(claim: 'sub' | 'sid', value: string, jti: string): Promise<boolean>
  /** Prolongs a session; returns a new value for the cookie, or null if it stays the same. */
  touch(session: Session, now: number): Promise<string | null>
  /** Lets one node at a time refresh a session; returns null while another one does. */
  lock(session: Session): Promise<(() => void) | null>
  close(): Promise<void>
}

/** Returns why a session is over; null if it is not. */
export function endOf(session: Session, { idleTimeout, lifetime }: SessionOptions, now: number): 'oidc_expired' | null {
  return now >= session.started + lifetime || now >= session.seen + idleTimeout ? 'oidc_expired' : null
}

/** Memory for decrypted sessions, and for sessions that were ended by a logout, in bytes. */
const cacheBytes = 8 * 1024 * 1024

/** Ids of sessions that were ended. A logout cannot delete copies of a cookie; this node at least refuses them. */
export type EndedSessions = ByteLru<true>

export const endedSessions = (): EndedSessions => new ByteLru(cacheBytes)

export class CookieSessions implements SessionStore {
  readonly #seal: Seal
  readonly #options: SessionOptions
  readonly #opened = new ByteLru<Session>(cacheBytes)
  readonly #ended: EndedSessions

  constructor(seal: Seal, options: SessionOptions, ended: EndedSessions) {
    this.#seal = seal
    this.#options = options
    this.#ended = ended
  }

  connect(): void {}

  async load(value: string): Promise<Session | null> {
    if (value.length > this.#options.maxSize) return null
    const key = hash('sha256', value, 'base64')
    let session = this.#opened.get(key)
    if (session === undefined) {
      const opened = (await this.#seal.open(value)) as Session | null
      if (opened === null) return null
      session = unpacked(opened)
      this.#opened.set(key, session, 3 * value.length)
    }
    return this.#ended.get(session.id) ? null : session
  }

  async save(session: Session, isNew: boolean): Promise<string> {
    if (!isNew && this.#ended.get(session.id)) throw new OidcFailure('oidc_session')
    const value = await this.#seal.seal(packed(session))
    const { maxSize } = this.#options
    if (value.length > maxSize) {
      throw new OidcFailure('oidc_size', `a session of ${value.length} bytes is more than maxSize: use store: redis`)
    }
    return value
  }

  async end({ id }: Session): Promise<void> {
    this.#ended.set(id, true, id.length)
  }

  async endAll(): Promise<boolean> {
    throw new Error('cookies cannot be ended by their users')
  }

  async touch(session: Session, now: number): Promise<string | null> {
    return now - session.seen < this.#options.idleTimeout / 10 ? null : this.save({ ...session, seen: now }, false)
  }

  async lock(): Promise<() => void> {
    return () => {}
  }

  async close(): Promise<void> {}
}
