/** Queries to Consul about the intentions of one service, as their source or as their destination. */
import type { Get } from '../../discovery/consul-get.ts'

/** Changed by tests only. */
export const intentionTiming = { every: 5000 }

/** Returns the query for all intentions of a service, for a `Watch`. */
export const intentionsOf = (service: string, by: 'source' | 'destination') => ({
  path: '/connect/intentions/match',
  query: { by, name: service },
  permission: `the token needs intentions:read on ${service}`,
  every: intentionTiming.every
})

/** Returns Consul's decision about a call that no intention governs; null if the response is no decision. */
export async function decisionOf(
  get: Get,
  call: { readonly source: string; readonly destination: string },
  signal: AbortSignal
): Promise<'allowed' | 'denied' | null> {
  const permission = `the token needs service:read on ${call.destination}`
  const { body } = await get('/connect/intentions/check', call, { timeout: 10_000, signal, permission })
  const { Allowed: allowed } = body as Record<string, unknown>
  if (typeof allowed !== 'boolean') return null
  return allowed ? 'allowed' : 'denied'
}
