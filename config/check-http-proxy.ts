/** Checks routes that are served through @fastify/http-proxy. */
import { checkFile } from './checked.ts'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { areSound } from './listeners.ts'
import { didYouMean } from './nearest.ts'
import { paramNames, pathPatterns } from './path-pattern.ts'
import type { Written } from './schema.ts'

type Route = Written['routes'][number]

/** Readings of `listen.paths` that http-proxy does not share: it compares the path with its prefix literally. */
const tolerant = ['case', 'trailingDot'] as const

export function checkHttpProxy(at: string, route: Route, checked: Checked): void {
  const { data, keys, report } = checked
  const { via, httpProxy, path } = route
  if (!report.usable(`${at}/via`)) return
  if (keys.withoutMesh && via !== 'bridge') checkWithoutMesh(at, route, report)
  else if (via === 'http-proxy') checkWithMesh(at, route, checked)
  else {
    if (httpProxy !== undefined) report.fault(`${at}/httpProxy`, 'no effect without via: http-proxy', 'key')
    return
  }
  checkFile(`${at}/httpProxy/module`, httpProxy?.module, checked)
  if (httpProxy?.rewritePrefix === undefined || !report.sound(`${at}/httpProxy/rewritePrefix`)) return
  checkRewritePrefix(at, route, httpProxy.rewritePrefix, checked)
  const place = `${at}/httpProxy/rewritePrefix`
  for (const reading of areSound(checked, 'paths') ? tolerant : []) {
    if (data.listen.paths[reading] !== 'ignore') continue
    const why = 'http-proxy finds a prefix only in the spelling of match.path'
    report.fault(place, `cannot be combined with listen.paths.${reading}: ignore: ${why}`, 'key')
  }
  if (path?.parameters === 'pass' && report.usable(`${at}/path/parameters`)) {
    const why = 'http-proxy does not find a prefix with path parameters in it'
    report.fault(place, `cannot be combined with path.parameters: pass: ${why}`, 'key')
  }
}

/** Reports keys that need the bridge. */
function checkWithMesh(at: string, { path, edge }: Route, { keys, report }: Checked): void {
  for (const { name, needsBridge } of keys.edge) {
    const isUnset = needsBridge === undefined || !Reflect.get(edge ?? {}, name)
    if (isUnset || !report.usable(`${at}/edge/${name}`)) continue
    report.fault(`${at}/edge/${name}`, `cannot be set with via: http-proxy, as ${needsBridge}`, 'key')
  }
  for (const key of ['strip', 'rewrite'] as const) {
    if (path?.[key] === undefined || !report.usable(`${at}/path/${key}`)) continue
    report.fault(`${at}/path/${key}`, 'cannot be set with via: http-proxy; set httpProxy.rewritePrefix instead', 'key')
  }
}

/** Reports two settings that change the path. Without the mesh all routes are served by http-proxy, so both can be set. */
function checkWithoutMesh(at: string, { path, httpProxy }: Route, report: Report): void {
  for (const key of ['strip', 'rewrite'] as const) {
    if (path?.[key] === undefined || httpProxy?.rewritePrefix === undefined || !report.usable(`${at}/path`)) continue
    report.fault(`${at}/path/${key}`, 'a path is changed once: set either it or httpProxy.rewritePrefix', 'key')
  }
}

function checkRewritePrefix(at: string, route: Route, text: string, { report }: Checked): void {
  const place = `${at}/httpProxy/rewritePrefix`
  const [unsent] = /\/\/|\/\.\.?(?=\/|$)|[?#%;\\*()]/.exec(text) ?? []
  if (unsent !== undefined) {
    report.fault(place, `a prefix must not contain "${unsent}": it is a plain path with parameters such as ":id"`)
    return
  }
  if (!report.usable(`${at}/match`) || !report.sound(`${at}/match/path`)) return
  const names = new Set(
    pathPatterns(route.match.path)
      .flatMap(paramNames)
      .filter((name) => name !== '*')
  )
  const used = Array.from(text.matchAll(/:([^/:.-]*)/g), ([, name = '']) => name)
  used.forEach((name, index) => {
    // http-proxy replaces the names as plain text, in the order of the path, so a shorter name also matches within a longer one.
    const part = [...names].find((begin) => begin !== name && name.startsWith(begin))
    if (!names.has(name)) {
      report.fault(place, `the path has no parameter ":${name}"${didYouMean(name, [...names])}`)
    } else if (part !== undefined) {
      report.fault(place, `http-proxy confuses ":${name}" with ":${part}"; rename one of the two`)
    } else if (used.indexOf(name) < index) {
      report.fault(place, `":${name}" occurs twice, but http-proxy replaces only the first one`)
    }
  })
}
