/**
 * Returns the alternative names of a certificate by kind: `DNS`, `URI`, `IP Address`. Node puts a value in quotes that
 * could be taken for two; a text that is not understood to its very end names nobody.
 */
export function alternativeNames(text: string | undefined): Readonly<Record<string, readonly string[]>> {
  const names: Record<string, string[]> = {}
  const part = /([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^",]*))(?:, |$)/y
  while (text && part.lastIndex < text.length) {
    const [, kind, quoted, plain] = part.exec(text) ?? []
    if (kind === undefined) return {}
    const value = quoted === undefined ? plain! : String(JSON.parse(quoted))
    names[kind] ??= []
    names[kind].push(value)
  }
  return names
}
