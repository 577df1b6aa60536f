/** Checks the page to which a logout redirects. */
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'

/** Warns of a page after the logout whose route needs a login itself: the browser would be logged in again at once. */
export function checkGoodbyes({ data, report }: Checked): void {
  if (!report.sound('/routes') || !report.sound('/edge')) return
  const warned = new Set<string>()
  for (const [index, { edge: own = {} }] of data.routes.entries()) {
    const { oidc } = { ...data.edge, ...own }
    const at = own.oidc === undefined ? '/edge/oidc' : `${pointer('/routes', index)}/edge/oidc`
    const logout = oidc ? oidc.logout : undefined
    const redirect = logout ? logout.redirect : undefined
    if (redirect === undefined || !redirect.startsWith('/') || warned.has(at) || !report.sound(at)) continue
    warned.add(at)
    const route = routeTo(redirect.replace(/[?#].*$/s, ''), data.routes)
    if (route === null) continue
    const policy = { ...data.edge, ...route.edge }
    if (!policy.oidc || policy.oidc.mode === 'shadow') continue
    if (policy.authentication && policy.authentication.anonymous !== undefined) continue
    const what = `route ${route.name} has this path and needs a login, so the browser is logged in again at once`
    report.warn(`${at}/logout/redirect`, `${what}; add a route for the path with edge: { oidc: false }`)
  }
}

/** Returns the route of a path, if the paths of all routes alone decide; else null. */
function routeTo(path: string, routes: Checked['data']['routes']): Checked['data']['routes'][number] | null {
  let [found, longest]: [(typeof routes)[number] | null, number] = [null, -1]
  for (const route of routes) {
    const { path: paths, ...others } = route.match
    for (const prefix of [paths].flat()) {
      if (typeof prefix !== 'string' || /[:*]/.test(prefix)) return null
      const base = prefix.replace(/\/$/, '')
      if (path !== base && !path.startsWith(`${base}/`)) continue
      if (Object.keys(others).length > 0) return null
      if (base.length > longest) [found, longest] = [route, base.length]
    }
  }
  return found
}
