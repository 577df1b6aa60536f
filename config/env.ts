/**
 * Substitutes `${NAME}` and `${NAME:-default}` in the values of a parsed document, never in its raw text: so the content of
 * a variable cannot add keys, and needs no quoting.
 */

interface Substitution {
  readonly text: string
  /** True if a variable was substituted. */
  readonly changed: boolean
  /** True if the text was `${NAME:-}` and the variable is empty or unset: the key is left out. */
  readonly omitted: boolean
  readonly faults: readonly string[]
}

const VARIABLE = /\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^{}]*)?\})?/g

/** `env` is null for a source whose values must not depend on the node that reads it. */
export function substitute(text: string, env: NodeJS.ProcessEnv | null): Substitution {
  const faults: string[] = []
  let changed = false
  const result = text.replace(VARIABLE, (match: string, name: string | undefined, fallback: string | undefined) => {
    if (match === '$${') return '${'
    if (name === undefined) {
      // biome-ignore lint/suspicious/noTemplateCurlyInString: how a variable is written
      faults.push('malformed variable: write ${NAME} or ${NAME:-default}, and $${ for the characters themselves')
      return ''
    }
    if (env === null) {
      faults.push('environment variables are not available here: write the value itself, and $${ for the characters ${')
      return match
    }
    changed = true
    const value = env[name]
    // As in a shell, the default also replaces an empty variable.
    if (fallback !== undefined) return value || fallback.slice(2)
    if (value === undefined) faults.push(`environment variable ${name} is not set, and has no default`)
    return value ?? ''
  })
  const omitted = result === '' && /^\$\{[A-Za-z_][A-Za-z0-9_]*:-\}$/.test(text)
  return { text: result, changed, omitted, faults }
}

/**
 * Replaces the braces of variables by Unicode noncharacters of the same length, so that positions stay right: in a flow
 * collection (`{ token: ${TOKEN:-} }`), the YAML parser would take the braces for its own syntax.
 */
export function mask(source: string): string {
  return source.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*(?::-[^{}\r\n]*)?)\}/g, '$\uFDD0$1\uFDD1')
}

export function unmask(text: string): string {
  return text.replaceAll('\uFDD0', '{').replaceAll('\uFDD1', '}')
}
