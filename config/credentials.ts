/** Recognition of secrets, which keeps them out of logs, metrics, messages and the admin API. */

/** Words at the end of names of secrets. */
const words = 'token|secret|password|passwd|credentials?'
/** Words at the end of names of parameters with secrets. */
const ofParameters = `${words}|pwd|key|apikey|sig|signature`
/** Matches user and password of a URL: its authority up to the last `@`. */
const userinfo = /\/\/[^\s/"'<>?#\\]*@/g
/** Matches a query parameter whose name suggests a secret. */
const parameter = new RegExp(`([?&](?:[\\w-]*[-_])?(?:${ofParameters})=)[^\\s&"'<>#\\\\]+`, 'gi')
/** Matches the name of such a parameter. */
const parameterName = new RegExp(`(?:${ofParameters})$`, 'i')
/** Matches keys of the configuration with secret values. `key` itself is not one: its value is a file name. */
const key = new RegExp(`(?:${words}|authorization|api-?key|hash)$`, 'i')
/** Matches names of headers whose values are secrets, as far as names tell: a word anywhere in the name, or as its last part. */
const field =
  /authorization|password|passwd|passphrase|pwd|secret|token|credential|session|signature|assertion|jwt|cookie|csrf|xsrf|dpop|key|(?:^|[^a-z0-9])(?:auth|pass|pin|otp|sid|sig)$/i
/** Names of headers that suggest a secret, but are no secrets. */
const harmless = new Set(['idempotency-key', 'sec-websocket-key', 'signature-input', 'surrogate-key'])
/** Headers whose values are always secrets. */
const alwaysSecret = new Set(['authorization', 'proxy-authorization', 'cookie', 'set-cookie'])

/** Replaces credentials in the URLs of a text by `***`. Linear in the text's length. */
export function maskCredentials(text: string): string {
  return text.replace(userinfo, '//***@').replace(parameter, '$1***')
}

/** Replaces user and password of one URL by `***`: everything from `//` to the last `@`, also in a malformed URL. */
export function maskUserinfo(url: string): string {
  const begin = url.indexOf('//')
  const end = url.lastIndexOf('@')
  return begin === -1 || end < begin ? url : `${url.slice(0, begin)}//***${url.slice(end)}`
}

/**
 * Returns one URL with `***` in place of user and password, and of its query: a key may have any name there, such as `code` of
 * Azure, or none.
 */
export function maskUrl(url: string): string {
  if (!URL.canParse(url)) return maskUserinfo(url).replace(/\?.*$/s, '?***')
  const { protocol, username, password, host, pathname, search } = new URL(url)
  const userinfo = username === '' && password === '' ? '' : '***@'
  return `${protocol}//${userinfo}${host}${pathname}${search === '' ? '' : '?***'}`
}

/** Returns whether the value of a key of the configuration is secret, given the key or a pointer to it. */
export const isSecretKey = (name: string): boolean => key.test(name)

/** Returns whether the value of a header is secret, by its name. */
export const isSecretField = (name: string): boolean => field.test(name) && !harmless.has(name.toLowerCase())

/** Returns whether the value of a header is secret, whatever the configuration says. */
export const isAlwaysSecret = (name: string): boolean => alwaysSecret.has(name.toLowerCase())

/** Returns whether the value of a parameter in the query or path of a request is secret. */
export const isSecretParameter = (name: string): boolean => parameterName.test(name) || isSecretField(name)
