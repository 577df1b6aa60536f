/**
 * Parses Node's text of a certificate's subjectAltName into names by kind: `DNS`, `URI`, `IP Address`. Node quotes values
 * that contain separators. A text that cannot be parsed to its end yields no names.
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
