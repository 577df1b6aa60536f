/** Secrets in the texts of servers: a server may repeat what it was sent, and its messages are logged. */

/** Shorter texts are in many words. */
const shortest = 4

/** Returns the secrets of header fields: their values, also without a scheme such as `Bearer`, and passwords of `Basic`. */
export function secretsIn(fields: Readonly<Record<string, string>>): string[] {
  return Object.values(fields).flatMap((value) => {
    const [, scheme = '', rest] = /^(\S+) +(.+)$/.exec(value) ?? []
    if (rest === undefined) return [value]
    if (scheme.toLowerCase() !== 'basic') return [value, rest]
    const login = Buffer.from(rest, 'base64').toString()
    const password = login.slice(login.indexOf(':') + 1)
    return [value, rest, password, decoded(password)]
  })
}

const secretParameters = ['client_secret', 'client_assertion', 'refresh_token', 'code', 'code_verifier'] as const

/** Returns the secrets of a request to a token endpoint (RFC 6749), with its body. */
export function secretsOfTokenRequest({ authorization }: Readonly<Record<string, string>>, body: string): string[] {
  const form = new URLSearchParams(body)
  const sent = secretParameters.flatMap((name) => form.get(name) ?? [])
  return authorization === undefined ? sent : [...sent, ...secretsIn({ authorization })]
}

/** In the requests of OAuth 2.0 (RFC 6749, 2.3.1), user and password are encoded as in a form. */
const decoded = (text: string): string => new URLSearchParams(`x=${text.replaceAll('&', '%26')}`).get('x')!

/** Returns a text with `***` in place of secrets. */
export function withoutSecrets(text: string, secrets: readonly string[]): string {
  const longestFirst = secrets.filter(({ length }) => length >= shortest).sort((a, b) => b.length - a.length)
  return longestFirst.reduce((shown, secret) => shown.replaceAll(secret, '***'), text)
}
