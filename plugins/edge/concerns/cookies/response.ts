/** Rules for the cookies that a service sets. */
import type { IncomingHttpHeaders } from 'node:http'
import type { ResponseCookies } from './options.ts'

/** Returns the function that changes the cookies in the header section of a service's response, which it copies. */
export function responseRules(rules: ResponseCookies): (headers: IncomingHttpHeaders) => IncomingHttpHeaders {
  const removed = new Set(rules.remove)
  const names = rules.names === undefined ? null : new Set(rules.names)
  const { domain, path, sameSite, secure, httpOnly } = rules
  const attributes = Object.entries({ domain, path, samesite: sameSite, secure, httponly: httpOnly })
  const changed = attributes.filter((entry): entry is [string, string | boolean] => entry[1] !== undefined)
  const written: Readonly<Record<string, string>> = {
    domain: 'Domain',
    path: 'Path',
    samesite: 'SameSite',
    secure: 'Secure',
    httponly: 'HttpOnly'
  }

  const change = (name: string, cookie: string): string => {
    if (names?.has(name) === false) return cookie
    // Browsers refuse these cookies with another domain or path, and both kinds if they are not secure.
    const isOfHost = /^__host-/i.test(name)
    const isSecure = isOfHost || /^__secure-/i.test(name)
    const own = changed.filter(
      ([each, value]) =>
        !(isOfHost && (each === 'domain' || each === 'path')) && !(isSecure && each === 'secure' && value === false)
    )
    const replaced = new Set(own.map(([each]) => each))
    const [pair = '', ...others] = cookie.split(';')
    const kept = others.filter((each) => !replaced.has(each.split('=', 1)[0]!.trim().toLowerCase()))
    const added = own.flatMap(([each, value]) =>
      value === false ? [] : [value === true ? ` ${written[each]}` : ` ${written[each]}=${value}`]
    )
    return [pair, ...kept, ...added].join(';')
  }

  return (headers) => {
    const given = headers['set-cookie']
    if (given === undefined) return headers
    const cookies = [given].flat().flatMap((cookie) => {
      const name = cookie.split(/[;=]/, 1)[0]!.trim()
      return removed.has(name) ? [] : [change(name, cookie)]
    })
    const { 'set-cookie': _given, ...others } = headers
    return cookies.length === 0 ? others : { ...others, 'set-cookie': cookies }
  }
}
