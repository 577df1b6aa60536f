/** Redirects of Traefik by regular expressions, which are for the whole URL. */
import { linearGroups } from '../linear-regexp.ts'
import { rewriteOf } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** URL by which an expression is tried, after the scheme and host. */
const sample = '/jingwei-sample-7/a?b=c'
const sampleHost = 'jingwei-sample.example'

/**
 * Returns the redirect of a route for a substitution in URLs; null if it is none that a route can make: the path has to stay, after
 * a prefix at most, and all hosts of the route, by http and https, have to lead to one target.
 */
export function redirectOf(regex: string, replacement: string, hosts: readonly string[]): Settings | null {
  const replace = substitution(regex, replacement)
  if (replace === null) return null
  const found = new Set<string>()
  for (const host of hosts.length === 0 ? [sampleHost] : hosts) {
    const urls = ['http', 'https'].map((scheme) => `${scheme}://${host}${sample}`)
    const targets = urls.map((url) => [url, replace(url)] as const).filter(([url, target]) => target !== url)
    if (targets.every(([, target]) => target === null)) return null
    for (const [, target] of targets) {
      if (target === null) continue
      if (!target.endsWith(sample)) return null
      found.add(target.slice(0, -sample.length))
    }
  }
  const [base, ...others] = found
  const [, origin, prefix] = /^(https?:\/\/[^/?#\s]+)((?:\/[^?#\s]*)?)$/.exec(base ?? '') ?? []
  if (origin === undefined || others.length > 0) return null
  return { to: prefix === '' ? origin : `${origin}${prefix}/*` }
}

/** Returns the function that replaces what an expression matches; it returns null for other texts. */
function substitution(regex: string, replacement: string): ((text: string) => string | null) | null {
  if (!regex.startsWith('^')) return null
  const { rewrite } = rewriteOf(regex, replacement) as { rewrite: { regex: string; to: string } }
  try {
    const { match } = linearGroups(rewrite.regex, false)
    return (text) => {
      const groups = match(text)
      return groups === null ? null : rewrite.to.replace(/\$(\d+)/g, (_, group) => groups[Number(group) - 1] ?? '')
    }
  } catch {
    return null
  }
}
