import type { ConfigurationMeter, Meter } from '../../../meter.ts'
import type { CountLogin } from './relying-party.ts'

const ofLogins = ['started', 'completed', 'failed'] as const
const ofSessions = ['valid', 'refreshed', 'invalid', 'failed'] as const

type CountSession = (result: (typeof ofSessions)[number]) => void

/** Returns a function that counts one of the results. */
function counter<R extends string>(meter: Meter, name: string, help: string, route: string, results: readonly R[]) {
  const metric = meter.counter({ name, help, labelNames: ['route', 'result'] })
  // Made at start: rate() does not see the first increment of a series that starts with it.
  const series = new Map(results.map((result) => [result, metric.labels(route, result)]))
  return (result: R): void => series.get(result)!.inc()
}

/** Makes the counters of a route. */
export function countersOf(meter: Meter, route: string): { login: CountLogin; session: CountSession } {
  return {
    login: counter(
      meter,
      'jingwei_edge_oidc_logins_total',
      'Logins by OpenID Connect, by route and result: started, completed or failed.',
      route,
      ofLogins
    ),
    session: counter(
      meter,
      'jingwei_edge_oidc_sessions_total',
      'Requests with a session, by route and result: valid, refreshed, invalid, or failed without the provider or Redis.',
      route,
      ofSessions
    )
  }
}

/** Makes the gauge of the providers, by issuer. */
export function watchProviders(
  meter: ConfigurationMeter,
  providers: ReadonlyMap<string, { readonly isUp: boolean | null }>
): void {
  meter.gauge({
    name: 'jingwei_edge_oidc_provider_up',
    help: 'Result of the last call to the OpenID provider: 1 if it responded, else 0.',
    labelNames: ['issuer'],
    collect(set) {
      for (const [issuer, { isUp }] of providers) if (isUp !== null) set({ issuer }, isUp ? 1 : 0)
    }
  })
}
