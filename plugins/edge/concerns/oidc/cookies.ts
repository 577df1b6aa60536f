/** Cookies of sessions and of logins in progress: names, chunks, and their removal from requests to services. */
import { randomInt } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { removeCookies } from '../../authentication/credentials.ts'

/** Characters of a cookie's value. Browsers limit a cookie to 4096 bytes with its name and attributes. */
const chunkSize = 3800
/**
 * Names of logins in progress. Each tab may begin one; of further ones the last ones stay. Tabs that load at once do not send
 * each other's cookies, so the names themselves bound the size: more cookies would exceed the limit of the header section, and the
 * browser would be refused until they expire.
 */
const slots = ['0', '1', '2'] as const
/** Name of the only login that returns to a long path. */
const longSlot = 'l'
/** Longest path and query in one of the other cookies. */
const longestPath = 1000
/** Cookies that a response deletes. */
const mostDeleted = 20

type Pair = readonly [name: string, value: string]

function pairsOf({ headers: { cookie } }: FastifyRequest): Pair[] {
  if (cookie === undefined) return []
  return cookie.split(';').map((text) => {
    const mark = text.indexOf('=')
    return [
      text.slice(0, mark === -1 ? undefined : mark).trim(),
      mark === -1 ? '' : text.slice(mark + 1).trim()
    ] as const
  })
}

export class Cookies {
  readonly name: string
  readonly #isSecure: boolean

  constructor(name: string, isSecure: boolean) {
    this.name = isSecure ? `__Host-${name}` : name
    this.#isSecure = isSecure
  }

  /** Returns whether a cookie is one of the session or of a login. */
  readonly isOwn = (name: string): boolean =>
    name.startsWith(this.name) && /^(?:$|\.\d+$|-login-)/.test(name.slice(this.name.length))

  /** Returns the value of the session's cookies; null if there are none. Cookies that occur twice give no valid session. */
  session(request: FastifyRequest): string | null {
    const { cookie } = request.headers
    if (cookie === undefined || !cookie.includes(this.name)) return null
    const own = pairsOf(request).filter(([name]) => this.#indexOf(name) !== null)
    if (own.length === 0) return null
    const sorted = own.toSorted(([a], [b]) => this.#indexOf(a)! - this.#indexOf(b)!)
    return sorted.map(([, value]) => value).join('')
  }

  #indexOf(name: string): number | null {
    if (name === this.name) return 0
    if (!name.startsWith(`${this.name}.`)) return null
    const index = name.slice(this.name.length + 1)
    return /^[1-9]\d?$/.test(index) ? Number(index) : null
  }

  /** Sets the session's cookies, and deletes chunks of an earlier session. */
  setSession(request: FastifyRequest, reply: FastifyReply, value: string, maxAgeMs: number): void {
    const count = Math.ceil(value.length / chunkSize)
    for (let index = 0; index < count; index++) {
      const name = index === 0 ? this.name : `${this.name}.${index}`
      this.#set(reply, name, value.slice(index * chunkSize, (index + 1) * chunkSize), maxAgeMs)
    }
    this.#delete(request, reply, (name) => (this.#indexOf(name) ?? -1) >= count)
  }

  clearSession(request: FastifyRequest, reply: FastifyReply): void {
    this.#delete(request, reply, (name) => this.#indexOf(name) !== null)
  }

  /** Returns the name of the login with this state, which begins with the slot. */
  #loginName(state: string): string {
    return `${this.name}-login-${state.slice(0, 1)}`
  }

  /** Returns the slot for a new login, with which its state must begin: a free one, else that of the oldest login. */
  slotFor(request: FastifyRequest, path: string): string {
    if (path.length > longestPath) return longSlot
    // Browsers send cookies with equal paths in the order of their creation.
    const names = pairsOf(request).map(([name]) => name)
    const used = names.flatMap((name) => slots.filter((slot) => name === this.#loginName(slot)))
    const free = slots.filter((slot) => !used.includes(slot))
    return free.length === 0 ? used[0]! : free[randomInt(free.length)]!
  }

  /** Returns the cookie of the login with this state. */
  login(request: FastifyRequest, state: string): string | null {
    const wanted = this.#loginName(state)
    return pairsOf(request).find(([name]) => name === wanted)?.[1] ?? null
  }

  setLogin(reply: FastifyReply, state: string, value: string, maxAgeMs: number): void {
    this.#set(reply, this.#loginName(state), value, maxAgeMs)
  }

  clearLogin(request: FastifyRequest, reply: FastifyReply, state: string): void {
    const wanted = this.#loginName(state)
    this.#delete(request, reply, (name) => name === wanted)
  }

  #set(reply: FastifyReply, name: string, value: string, maxAgeMs: number): void {
    const age = Math.max(0, Math.floor(maxAgeMs / 1000))
    const secure = this.#isSecure ? '; Secure' : ''
    // A shared cache would give the cookie to other users.
    reply.header('cache-control', 'no-store')
    // Lax: the return from the provider is a navigation of another site.
    reply.header('set-cookie', `${name}=${value}; Path=/; Max-Age=${age}; HttpOnly; SameSite=Lax${secure}`)
  }

  #delete(request: FastifyRequest, reply: FastifyReply, isWanted: (name: string) => boolean): void {
    const names = pairsOf(request).flatMap(([name]) => (isWanted(name) ? [name] : []))
    // Bounded, since a client may send hundreds of cookies: the rest is deleted by later responses.
    for (const name of [...new Set(names)].slice(0, mostDeleted)) this.#set(reply, name, '', 0)
  }
}

/** Returns the hook that removes the cookies of sessions and logins from the request to the service. */
export function cookieRemoval(all: ReadonlyMap<string, Cookies>) {
  const isOwn = (name: string): boolean => {
    for (const cookies of all.values()) if (cookies.isOwn(name)) return true
    return false
  }
  return (request: FastifyRequest, _reply: FastifyReply, done: () => void): void => {
    const { cookie } = request.headers
    if (cookie !== undefined) {
      for (const { name } of all.values()) {
        if (!cookie.includes(name)) continue
        removeCookies(request, isOwn)
        break
      }
    }
    done()
  }
}
