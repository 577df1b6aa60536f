/** User and password of a URL: all of its authority up to the last `@`. */
const userinfo = /\/\/[^\s/"'<>?#\\]*@/g
/** A query parameter whose name says that its value is secret. */
const secretParameter =
  /([?&](?:\w+[-_])?(?:token|secret|password|passwd|pwd|key|apikey|sig|signature|credentials?)=)[^\s&"'<>#\\]+/gi

/** Replaces credentials in the URLs of a text by `***`. Linear in the text's length. */
export function maskCredentials(text: string): string {
  return text.replace(userinfo, '//***@').replace(secretParameter, '$1***')
}
