/**
 * `${NAME}` and `${NAME:-default}` in the values of a parsed document. Never in its raw text: what a
 * variable holds can't add keys, and needs no quoting.
 */

export interface Substitution {
  readonly text: string
  /** True if any variable was put in. */
  readonly changed: boolean
  /** The text was one variable whose default is to be left out: `${NAME:-}`. */
  readonly omitted: boolean
  readonly faults: readonly string[]
}

const VARIABLE = /\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^{}]*)?\})?/g

export function substitute(text: string, env: NodeJS.ProcessEnv): Substitution {
  const faults: string[] = []
  let changed = false
  const result = text.replace(VARIABLE, (match: string, name: string | undefined, fallback: string | undefined) => {
    if (match === '$${') return '${'
    if (name === undefined) {
      // biome-ignore lint/suspicious/noTemplateCurlyInString: how a variable is written
      faults.push('malformed variable: write ${NAME} or ${NAME:-default}, and $${ for the characters themselves')
      return ''
    }
    changed = true
    const value = env[name]
    // As in a shell, a default also stands in for a variable that is set to nothing.
    if (fallback !== undefined) return value || fallback.slice(2)
    if (value === undefined) faults.push(`environment variable ${name} is not set, and has no default`)
    return value ?? ''
  })
  const omitted = result === '' && /^\$\{[A-Za-z_][A-Za-z0-9_]*:-\}$/.test(text)
  return { text: result, changed, omitted, faults }
}

/**
 * In a flow collection (`{ token: ${TOKEN:-} }`) YAML takes the braces for its own. So, while it reads, they are
 * noncharacters, which stand for nothing else and are as long, so that positions stay right.
 */
export function mask(source: string): string {
  return source.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*(?::-[^{}\r\n]*)?)\}/g, '$\uFDD0$1\uFDD1')
}

export function unmask(text: string): string {
  return text.replaceAll('\uFDD0', '{').replaceAll('\uFDD1', '}')
}
