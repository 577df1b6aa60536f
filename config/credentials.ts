/** Recognition of secrets, which keeps them out of logs, metrics, messages and the admin API. */

/** Words at the end of a name whose value is secret, wherever the name stands. */
const words = 'token|secret|password|passwd|credentials?'
/** User and password of a URL: all of its authority up to the last `@`. */
const userinfo = /\/\/[^\s/"'<>?#\\]*@/g
/** A query parameter whose name says that its value is secret. */
const parameter = new RegExp(`([?&](?:\\w+[-_])?(?:${words}|pwd|key|apikey|sig|signature)=)[^\\s&"'<>#\\\\]+`, 'gi')
/** A key of the configuration; the value of `key` itself is the name of a file. */
const key = new RegExp(`(?:${words}|authorization|api-?key)$`, 'i')
/** A field of a request. */
const field = /^(?:authorization|proxy-authorization|cookie|.*(?:token|key|secret).*)$/i

/** Replaces credentials in the URLs of a text by `***`. Linear in the text's length. */
export function maskCredentials(text: string): string {
  return text.replace(userinfo, '//***@').replace(parameter, '$1***')
}

/** Replaces user and password of one URL by `***`, also of a malformed one: all from `//` up to the last `@`. */
export function maskUserinfo(url: string): string {
  const begin = url.indexOf('//')
  const end = url.lastIndexOf('@')
  return begin === -1 || end < begin ? url : `${url.slice(0, begin)}//***${url.slice(end)}`
}

/** Returns whether the value of a key of the configuration is secret, given the key or a pointer to it. */
export const isSecretKey = (name: string): boolean => key.test(name)

/** Returns whether the value of a header of a request is secret. */
export const isSecretField = (name: string): boolean => field.test(name)
