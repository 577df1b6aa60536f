/** Checks the paths of a route's match, its hosts, and the settings that change the path. */
import FindMyWay from 'find-my-way'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { writtenHostKey } from './host-name.ts'
import { linearGroups } from './linear-regexp.ts'
import { didYouMean } from './nearest.ts'
import type { WrittenPath } from './path-pattern.ts'
import { isPattern, paramNames, pathPatterns, pathsOf, patternsOf } from './path-pattern.ts'
import { substitutionParts, templateParts } from './path-template.ts'
import { costFault } from './regex-cost.ts'
import type { Written } from './schema.ts'

type Route = Written['routes'][number]

/** A path as written, without `exact`. */
const textOf = (path: WrittenPath) => (typeof path === 'string' ? path : path.exact)

export function checkPaths(at: string, route: Route, { report }: Checked): void {
  if (!report.usable(`${at}/match`) || !report.sound(`${at}/match/path`)) return
  const { path } = route.match
  const paths = pathsOf(path)
  paths.forEach((each, index) => {
    const place = Array.isArray(path) ? pointer(at, 'match', 'path', index) : `${at}/match/path`
    checkPath(typeof each === 'string' ? place : `${place}/exact`, each, report)
  })
  if (report.usable(`${at}/match/hosts`))
    route.match.hosts?.forEach((host, index) => {
      const place = pointer(at, 'match', 'hosts', index)
      if (report.usable(place) && writtenHostKey(host) === null) report.fault(place, `"${host}" is not a host name`)
    })
  checkChanges(at, route, paths, report)
}

function checkPath(place: string, path: WrittenPath, report: Report): void {
  const text = textOf(path)
  const exact = typeof path !== 'string'
  const [ambiguous] = /\/\/|\/\.\.?(?=\/|$)|[?#%;\\]/.exec(text) ?? []
  const hint = parameterHint(text)
  if (ambiguous !== undefined) {
    const expression = escapeHint(text)
    const paths = 'paths are matched after decoding, without dot segments, empty segments, path parameters and queries'
    report.fault(place, expression ?? `a match path must not contain "${ambiguous}": ${paths}`)
  } else if (hint !== undefined) report.fault(place, hint)
  if (exact && text.includes('*')) report.fault(place, 'an exact path cannot contain "*"')
  else if (!exact && isPattern(text)) checkPattern(place, text, report)
}

/** Checks the settings that change the path. */
function checkChanges(at: string, { path }: Route, paths: readonly WrittenPath[], report: Report): void {
  const { strip, rewrite } = path ?? {}
  if (rewrite !== undefined && report.sound(`${at}/path/rewrite`))
    checkRewrite(`${at}/path/rewrite`, rewrite, paths, report)
  if (!report.sound(`${at}/path`) || !report.sound(`${at}/match/path`)) return
  const key = `${at}/path/${strip === undefined ? 'rewrite' : 'strip'}`
  if (strip !== undefined && rewrite !== undefined) {
    report.fault(`${at}/path/rewrite`, 'a path is either stripped or rewritten, not both', 'key')
  } else if (strip === true || rewrite?.prefix !== undefined) {
    const whole = paths.find(
      (each) =>
        typeof each === 'string' && patternsOf(each).some(({ end, length }) => end === 'whole' && length === null)
    )
    if (whole === undefined) return
    report.fault(key, `"${textOf(whole)}" is a pattern for the whole path, which has no rest to keep`, 'key')
  } else if (strip !== undefined) {
    for (const each of paths) {
      const text = textOf(each)
      if (isPrefix(strip, text)) continue
      report.fault(key, `"${strip}" is not a prefix of "${text}" that ends at a segment boundary`)
      return
    }
    if (strip.includes('*')) report.fault(key, 'a prefix cannot contain "*"; true strips all that precedes it')
    else if (isPattern(strip)) checkPattern(key, strip, report)
  }
}

type Rewriting = NonNullable<NonNullable<Route['path']>['rewrite']>

function checkRewrite(at: string, rewrite: Rewriting, paths: readonly WrittenPath[], report: Report): void {
  const { path, regex, to } = rewrite
  if (['prefix', 'path', 'regex'].filter((key) => Object.hasOwn(rewrite, key)).length !== 1) {
    report.fault(at, 'a path is rewritten by one of prefix, path, and regex with to')
    return
  }
  if ((regex === undefined) !== (to === undefined)) {
    report.fault(at, regex === undefined ? '"to" needs "regex"' : 'missing key "to"')
    return
  }
  for (const key of ['prefix', 'path', 'to'] as const) {
    const [unsent] = /\/\/|\/\.\.?(?=\/|$)|[?#;\\]|%(?![\da-f]{2})/i.exec(rewrite[key] ?? '') ?? []
    if (unsent === undefined) continue
    const what = key === 'prefix' ? 'a prefix must not contain' : 'a path must not contain'
    report.fault(`${at}/${key}`, `${what} "${unsent}": it is a plain path`)
  }
  for (const part of path === undefined ? [] : templateParts(path)) {
    const lacks = paths.find((each) => 'name' in part && !patternsOf(each).flatMap(paramNames).includes(part.name))
    if (!('name' in part) || lacks === undefined) continue
    const names = patternsOf(lacks).flatMap(paramNames)
    const shown = part.name === '*' ? '*' : `:${part.name}`
    report.fault(`${at}/path`, `"${textOf(lacks)}" has no parameter "${shown}"${didYouMean(part.name, names)}`)
    return
  }
  if (regex !== undefined && to !== undefined) checkExpression(at, regex, to, report)
}

function checkExpression(at: string, regex: string, to: string, report: Report): void {
  try {
    const { count } = linearGroups(regex)
    const unknown = substitutionParts(to).find(
      (part) => 'name' in part && (part.name === '0' || Number(part.name) > count)
    )
    if (unknown !== undefined && 'name' in unknown)
      report.fault(`${at}/to`, `"$${unknown.name}" is no group: the expression has ${count}`)
  } catch (error) {
    report.fault(`${at}/regex`, `invalid expression: ${(error as Error).message}`)
  }
}

/** Returns whether a text is the beginning of a path, parameters included, up to a segment boundary. */
function isPrefix(strip: string, path: string): boolean {
  const prefix = strip.replace(/\/+$/, '')
  return path === prefix || path.startsWith(`${prefix}/`)
}

/** Reports a pattern that the router rejects, or whose matching can take more than linear time. */
function checkPattern(place: string, text: string, report: Report): void {
  if (/\*./.test(text.replace(/\([^)]*\)/g, ''))) {
    const prefix = text.replace(/\/?\*.*$/, '') || '/'
    const meant = `"${prefix}" matches it and all paths below, "${prefix.replace(/\/$/, '')}/*" only those below`
    report.fault(place, `"*" is allowed only at the end of a path: ${meant}`)
    return
  }
  try {
    FindMyWay().on('GET', text, () => {})
    for (const { parts } of pathPatterns(text)) {
      for (const part of parts) {
        const fault = part.kind === 'regex' ? costFault(part.pieces) : null
        if (fault !== null) throw new Error(fault)
      }
    }
  } catch (error) {
    report.fault(place, `invalid pattern: ${(error as Error).message}`)
  }
}

/** Classes of regular expressions without a backslash. */
const ofClasses: Readonly<Record<string, string>> = {
  d: '[0-9]', D: '[^0-9]', w: '[A-Za-z0-9_]', W: '[^A-Za-z0-9_]', s: '[ ]', S: '[^ ]'
} // biome-ignore format: a table

/** Returns advice for escapes and groups of regular expressions in a match path. */
function escapeHint(text: string): string | undefined {
  const [group, name] = /\(\?(?:P?<(\w+)>|:)/.exec(text) ?? []
  if (group !== undefined)
    return `a match path must not contain "${group}": write a group as a parameter, ":${name ?? 'id'}(^[0-9]+$)"`
  const [, escaped] = /\(.*?\\(.).*\)/.exec(text) ?? []
  if (escaped === undefined) {
    const [outside] = /\\[dDwWsS]/.exec(text) ?? []
    return outside && `a match path must not contain "${outside}": write a parameter such as ":id(^[0-9]+$)"`
  }
  const instead = ofClasses[escaped] ?? (/\w/.test(escaped) ? undefined : `[${escaped}]`)
  return `a match path must not contain "\\${escaped}"${instead === undefined ? '' : `: write ${instead}`}`
}

/** Returns advice for a parameter in the syntax of other gateways, `{id}`; undefined if the path has none. */
function parameterHint(text: string): string | undefined {
  const [found, name, constraint] = /\{([\w-]*)(?::([^{}/]+))?[^{}/]*\}/.exec(text.replace(/\([^)]*\)/g, '')) ?? []
  if (found === undefined) return undefined
  const instead = `:${name || 'id'}${constraint === undefined ? '' : `(^${constraint}$)`}`
  return `"${found}" would be matched literally; write a parameter as "${instead}"`
}
