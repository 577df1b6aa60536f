/** Checks routes to which the gateway responds itself. */
import { bodyKeyOf, checkBody } from './check-body.ts'
import { checkPortal } from './check-portal.ts'
import { isFolder, namesIn } from './checked.ts'
import type { Checked } from './concern.ts'
import type { DirectKind } from './direct-routes.ts'
import { directKinds } from './direct-routes.ts'
import { pointer } from './faults.ts'
import { isConnectionHeader } from './header-names.ts'
import { didYouMean } from './nearest.ts'
import { paramNames, pathsOf, patternsOf } from './path-pattern.ts'
import { templateParts } from './path-template.ts'
import { redirectTarget } from './redirect-target.ts'
import type { FilesConfig, FixedResponseConfig, RedirectConfig } from './schema/direct.ts'
import type { Written } from './schema.ts'

type Route = Written['routes'][number]

/** Keys of a route that need a service. */
const ofServices = ['service', 'split', 'via', 'httpProxy', 'stickOn', 'mesh', 'forward'] as const

/** Checks a route with one of these keys. */
export function checkDirect(at: string, route: Route, kind: DirectKind, checked: Checked): void {
  const { report, keys } = checked
  for (const key of directKinds) {
    if (key !== kind && route[key] !== undefined)
      report.fault(`${at}/${key}`, `a route has either ${kind} or ${key}`, 'key')
  }
  for (const key of ofServices) {
    if (route[key] === undefined) continue
    const isTarget = key === 'service' || key === 'split'
    const why = isTarget
      ? `a route has either ${kind} or a service`
      : `no effect with ${kind}: the route calls no service`
    report.fault(`${at}/${key}`, why, 'key')
  }
  for (const { name, needsBridge } of keys.edge) {
    if (needsBridge === undefined || !Reflect.get(Object(route.edge), name) || !report.usable(`${at}/edge/${name}`))
      continue
    report.fault(`${at}/edge/${name}`, `no effect with ${kind}: the response is not that of a service`, 'key')
  }
  if (!report.sound(`${at}/${kind}`)) return
  if (route.response !== undefined) checkResponse(at, route, route.response, checked)
  else if (route.redirect !== undefined) checkRedirect(at, route, route.redirect, checked)
  else if (route.files !== undefined) checkFiles(`${at}/files`, route.files, checked)
  else if (route.portal !== undefined) checkPortal(at, route, route.portal, checked)
}

/** Statuses without a body (RFC 9110, 15). */
const bodiless = new Set([204, 205, 304])
const redirects = new Set([301, 302, 303, 307, 308])

function checkResponse(at: string, route: Route, response: FixedResponseConfig, checked: Checked): void {
  const { report } = checked
  const place = `${at}/response`
  const { status, headers = {} } = response
  const first = bodyKeyOf(response)
  if (first !== undefined && bodiless.has(status))
    report.fault(`${place}/${first}`, `a response with status ${status} has no body`, 'key')
  if (redirects.has(status) && !Object.keys(headers).some((name) => name.toLowerCase() === 'location')) {
    report.fault(
      `${place}/status`,
      `a response with status ${status} needs a target: write redirect: { to: … } instead`
    )
  }
  for (const [name, value] of Object.entries(headers)) {
    const header = pointer(place, 'headers', name)
    if (name.toLowerCase() === 'content-type') report.fault(header, 'write contentType instead', 'key')
    else if (isConnectionHeader(name)) report.fault(header, 'the gateway sets this header itself', 'key')
    else if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) report.fault(header, 'a header value cannot have this character')
  }
  for (const key of ['strip', 'rewrite'] as const) {
    if (route.path?.[key] === undefined || !report.usable(`${at}/path/${key}`)) continue
    report.fault(`${at}/path/${key}`, 'no effect with response: the path goes to no service', 'key')
  }
  checkBody(place, response, checked)
}

function checkRedirect(at: string, route: Route, redirect: RedirectConfig, { data, report }: Checked): void {
  const place = `${at}/redirect`
  const { to, scheme, port } = redirect
  const changes = (['strip', 'rewrite'] as const).filter((key) => route.path?.[key] !== undefined)
  if (to === undefined && scheme === undefined && changes.length === 0) {
    report.fault(place, 'needs a target: write "to", or "scheme"')
    return
  }
  if (port !== undefined && scheme === undefined)
    report.fault(`${place}/port`, 'no effect without "scheme"; write it in "to"', 'key')
  if (to === undefined) {
    checkSameHost(at, route, redirect, changes.length > 0, { data, report })
    return
  }
  try {
    const { origin, path } = redirectTarget(to)
    if (origin !== null && scheme !== undefined) report.fault(`${place}/scheme`, '"to" has a scheme already', 'key')
    if (path === null) return
    for (const key of changes)
      report.fault(
        `${at}/path/${key}`,
        'no effect: redirect.to has a path; a URL without one keeps that of the request',
        'key'
      )
    if (!report.usable(`${at}/match`) || !report.sound(`${at}/match/path`)) return
    const paths = pathsOf(route.match.path)
    for (const part of templateParts(path)) {
      const lacks = paths.find((each) => 'name' in part && !patternsOf(each).flatMap(paramNames).includes(part.name))
      if (!('name' in part) || lacks === undefined) continue
      const text = typeof lacks === 'string' ? lacks : lacks.exact
      const names = patternsOf(lacks).flatMap(paramNames)
      const shown = part.name === '*' ? '*' : `:${part.name}`
      report.fault(`${place}/to`, `"${text}" has no parameter "${shown}"${didYouMean(part.name, names)}`)
      return
    }
    const isItself = paths.some((each) => typeof each !== 'string' && each.exact === path)
    if (origin === null && scheme === undefined && isItself)
      report.fault(`${place}/to`, 'the route redirects to itself: clients would not get anywhere')
  } catch (error) {
    report.fault(`${place}/to`, (error as Error).message)
  }
}

/** Checks a redirect to another scheme of the same host and path: it must not exist where the scheme is that already. */
function checkSameHost(
  at: string,
  { match }: Route,
  { scheme, port }: RedirectConfig,
  changesPath: boolean,
  { data, report }: Pick<Checked, 'data' | 'report'>
): void {
  if (
    scheme === undefined ||
    port !== undefined ||
    changesPath ||
    !report.sound('/listen') ||
    !report.sound(`${at}/match`)
  )
    return
  const same = data.listeners.filter(
    ({ name, tls, connect }) =>
      (match.listeners?.includes(name) ?? true) && (scheme === 'https') === (tls !== undefined || connect !== undefined)
  )
  const [first] = same
  if (first === undefined) return
  const others = data.listeners.filter((each) => !same.includes(each) && (match.listeners?.includes(each.name) ?? true))
  const advice =
    others.length > 0
      ? `; write match.listeners: [${others.map(({ name }) => name).join(', ')}]`
      : scheme === 'https'
        ? '; for all requests to a listener without TLS write listen.redirect: https'
        : ''
  report.fault(
    `${at}/redirect/scheme`,
    `requests to listener "${first.name}" use ${scheme} already, so the redirect leads to itself${advice}`
  )
}

function checkFiles(
  at: string,
  { root, index, spa, maxAge, immutable }: FilesConfig,
  { report, absolute }: Checked
): void {
  const folder = absolute(root)
  if (!isFolder(folder)) report.fault(`${at}/root`, `no such folder: ${folder}`)
  else if (spa && !namesIn(folder).includes(index))
    report.fault(`${at}/spa`, `the folder has no "${index}", which page loads get: ${folder}`, 'key')
  if (immutable && maxAge === undefined) report.fault(`${at}/immutable`, 'no effect without "maxAge"', 'key')
}
