/** Checks `listen.tls.hosts` against the names of certificates and the hosts of routes. */
import type { Steps } from '../plugins/time-slices.ts'
import type { Pair } from './certificates.ts'
import type { Checked } from './concern.ts'
import { hostsOverlap, patternKey } from './host-name.ts'
import { didYouMean } from './nearest.ts'
import type { TlsOptions } from './schema/tls.ts'
import { ServerNames } from './server-names.ts'

/**
 * Checks that each rule for client certificates can apply: a misspelt host would leave the intended host without the rule.
 * `rules` maps the keys of hosts to their pointers.
 */
export function* checkTlsHosts(
  tls: TlsOptions,
  pairs: readonly Pair[],
  rules: ReadonlyMap<string, string>,
  { data: { listeners, routes, plugins }, report }: Checked
): Steps<void> {
  if (rules.size === 0 || !report.sound('/routes') || !report.usable('/plugins')) return
  const { strict, folders } = tls
  const listener = listeners.find((each) => each.tls === tls)!.name
  const certificates = new ServerNames<true>()
  const names = new Set<string>()
  for (const { facts } of pairs) {
    certificates.add(facts.names, true)
    for (const name of facts.names) names.add(name)
  }
  const hosts = new Set<string>()
  // Routes that plugins add may be for any host.
  let isAnyServed = routes.length === 0 || plugins.length > 0
  for (const { match } of routes) {
    if (match.listeners !== undefined && !match.listeners.includes(listener)) continue
    if (match.hosts === undefined) isAnyServed = true
    for (const host of match.hosts ?? []) hosts.add(patternKey(host) ?? host)
  }
  for (const [name, place] of rules) {
    yield
    const isWildcard = name.startsWith('*.')
    const isCertified = isWildcard
      ? [...names].some((each) => each.endsWith(name.slice(1)))
      : certificates.find(name) !== undefined
    const isRouted = [...hosts].some((host) => hostsOverlap(name, host))
    if (isRouted && (isCertified || !strict)) continue
    if (isCertified && isAnyServed) continue
    const advice = didYouMean(
      name,
      [...hosts, ...names].filter((each) => !rules.has(each))
    )
    if (strict && !isCertified) {
      const message = `no certificate has the name ${name}, so with strict: true all handshakes for it fail${advice}`
      // Certificates may be put into folders later.
      if (folders.length > 0) report.warn(place, message)
      else report.fault(place, message)
    } else {
      const lacking = isCertified ? 'no route' : 'no certificate and no route'
      report.warn(place, `${lacking} has the name ${name}, so this rule has no effect${advice}`)
    }
  }
}
