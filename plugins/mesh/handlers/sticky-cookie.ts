import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/** The value of a new sticky cookie. It is no secret: it only has to be another for every caller. */
export function mintKey(random: () => number): string {
  return hex(random()) + hex(random())
}

function hex(point: number): string {
  return Math.floor(point * 2 ** 32)
    .toString(16)
    .padStart(8, '0')
}

/** Puts a cookie (`NAME=VALUE; Path=/; …`) on the answer, besides those of the service. */
export class CookieHandler extends ForwardingHandler {
  readonly #cookie: string

  constructor(next: DispatchHandler, cookie: string) {
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
    return { ...headers, 'set-cookie': [...(theirs === undefined ? [] : [theirs].flat()), this.#cookie] }
  }
}
