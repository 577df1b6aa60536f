/** Sessions of logins by OpenID Connect. */
import type { Settings } from './yaml-text.ts'

/** Shortest secret, in characters. */
const shortest = 32

/** Returns the `session` of a login. Without a secret that is long enough, it is a variable. */
export function sessionOf(secret: string | undefined, note: (text: string) => void): Settings {
  if (secret !== undefined && (secret.length >= shortest || secret.includes('$'))) return { secrets: [secret] }
  note(`the secret of sessions needs ${shortest} characters (openssl rand -base64 32): set OIDC_SESSION_SECRET`)
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the configuration
  return { secrets: ['${OIDC_SESSION_SECRET}'] }
}
