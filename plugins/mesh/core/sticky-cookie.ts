import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Caller } from '../../seam.ts'
import { ForwardingHandler } from './handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from './types.ts'

/** A new sticky cookie for a caller without one. */
export interface Minted {
  readonly name: string
  readonly key: string
  /** Attributes besides `Path`, `HttpOnly`, `SameSite` and `Secure`. */
  attributes: string
  /** True if the caller used TLS; the cookie then has `Secure`. */
  readonly isSecure: boolean
}

/** Returns the value of a new sticky cookie. It is not a secret: it only has to differ between callers. */
function mintKey(random: () => number): string {
  return hex(random()) + hex(random())
}

export function mint(name: string, attributes: string, caller: Caller | undefined, random: () => number): Minted {
  const protocol = caller?.protocol?.toLowerCase()
  return { name, key: mintKey(random), attributes, isSecure: protocol === 'https' || protocol === 'wss' }
}

function hex(point: number): string {
  return Math.floor(point * 2 ** 32)
    .toString(16)
    .padStart(8, '0')
}

/** Adds a sticky cookie to the response, besides the service's own cookies. */
export class CookieHandler extends ForwardingHandler {
  readonly #cookie: Minted

  constructor(next: DispatchHandler, cookie: Minted) {
    super(next)
    this.#cookie = cookie
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.next.onRequestUpgrade?.(controller, status, this.#with(headers), socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    this.next.onResponseStart?.(controller, status, status < 200 ? headers : this.#with(headers), text)
  }

  #with(headers: IncomingHttpHeaders): IncomingHttpHeaders {
    // A single Set-Cookie field is a string, several are a list.
    const theirs: string | string[] | undefined = headers['set-cookie']
    const { name, key, attributes, isSecure } = this.#cookie
    const ours = `${name}=${key}; Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}${attributes}`
    return { ...headers, 'set-cookie': [...(theirs === undefined ? [] : [theirs].flat()), ours] }
  }
}
