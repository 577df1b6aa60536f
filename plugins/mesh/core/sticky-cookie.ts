import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Caller } from '../../seam.ts'
import { ForwardingHandler } from './handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from './types.ts'

/** A sticky cookie for a caller who has none. */
export interface Minted {
  readonly name: string
  readonly key: string
  /** Attributes besides the usual ones. */
  attributes: string
  /** True if the caller came over TLS. The cookie then never travels without. */
  readonly isSecure: boolean
}

/** The value of a new sticky cookie. It is no secret: it only has to be another for every caller. */
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

/** Puts a cookie on the answer, besides those of the service. */
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
    // undici gives a single one as text.
    const theirs: string | string[] | undefined = headers['set-cookie']
    const { name, key, attributes, isSecure } = this.#cookie
    const ours = `${name}=${key}; Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}${attributes}`
    return { ...headers, 'set-cookie': [...(theirs === undefined ? [] : [theirs].flat()), ours] }
  }
}
