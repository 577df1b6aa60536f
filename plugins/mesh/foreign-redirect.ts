/**
 * Redirects from hosts outside into the mesh. `fetch` follows redirects by itself, and the dispatcher cannot tell such a call
 * from one of the program: so any host could send the program's `fetch` to a service, with the mesh's identity and headers. The
 * response that redirects is refused instead.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { DispatchController, DispatchHandler } from './core/types.ts'

const meshOrigin = /^https?:\/\/[^/]*\.mesh(?::\d+)?$/

/** Returns whether calls of this origin go to a service. */
export const isMeshOrigin = (origin: string): boolean => meshOrigin.test(origin)

/** Handler of undici before version 7, which the `fetch` of undici 7 uses, too. */
interface LegacyHandler {
  onConnect(abort: (error: Error) => void, ...rest: unknown[]): unknown
  onHeaders(status: number, headers: readonly Buffer[], ...rest: unknown[]): unknown
}

class RedirectRefused extends Error {
  readonly code = 'JW_REDIRECT_REFUSED'

  constructor(from: string, to: string) {
    super(`${from} redirects to the mesh, ${to}; only the program itself and services may call services`)
  }
}

/** Returns all origins that a client may read from the values of `Location`, which may be bytes of UTF-8. */
function originsOf(locations: readonly string[], base: string): string[] {
  // Several values are invalid; fetch joins them.
  const texts = [...locations, locations.join(', ')]
  const urls = texts.flatMap((text) => [text, Buffer.from(text, 'latin1').toString()])
  return urls.flatMap((url) => URL.parse(url, base)?.origin ?? [])
}

function refusal(status: number, locations: readonly string[], base: string): RedirectRefused | null {
  if (status < 300 || status > 399 || locations.length === 0) return null
  const to = originsOf(locations, base).find(isMeshOrigin)
  return to === undefined ? null : new RedirectRefused(base, to)
}

/** Returns the values of `Location` in a flat list of names and values. */
function inPairs(pairs: readonly (Buffer | string | readonly (Buffer | string)[])[]): string[] {
  const texts = (value: (typeof pairs)[number]): string[] => {
    if (typeof value === 'string') return [value]
    return Buffer.isBuffer(value) ? [value.toString('latin1')] : value.flatMap(texts)
  }
  return pairs.flatMap((name, index) => {
    const isName = index % 2 === 0 && texts(name)[0]?.toLowerCase() === 'location'
    return isName ? texts(pairs[index + 1]!) : []
  })
}

/**
 * Returns the handler of a call to a host outside, with its own methods but for those that see the response's start. A Proxy,
 * since the handler may be of any undici.
 */
export function refusingRedirects(handler: DispatchHandler, base: string): DispatchHandler {
  const legacy = handler as unknown as LegacyHandler
  let abort: (error: Error) => void
  const own = {
    onConnect(abortCall: typeof abort, ...rest: unknown[]): unknown {
      abort = abortCall
      return legacy.onConnect(abortCall, ...rest)
    },
    onHeaders(status: number, headers: readonly Buffer[], ...rest: unknown[]): unknown {
      const error = refusal(status, inPairs(headers), base)
      if (error === null) return legacy.onHeaders(status, headers, ...rest)
      abort(error)
      return false
    },
    onResponseStart(controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
      const { rawHeaders } = controller
      const locations = [headers.location ?? [], Array.isArray(rawHeaders) ? inPairs(rawHeaders) : []].flat()
      const error = refusal(status, locations, base)
      if (error === null) handler.onResponseStart?.(controller, status, headers, text)
      else controller.abort(error)
    }
  }
  return new Proxy(handler, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key)
      if (typeof value !== 'function') return value
      return Object.hasOwn(own, key) ? Reflect.get(own, key) : value.bind(target)
    }
  })
}
