/**
 * Client of the Consul agent for all services. It logs one line, not one per service, when the agent or a datacenter
 * behind it becomes unavailable or available.
 */
import type http from 'node:http'
import { asError } from '../../../thrown.ts'
import type { Logger, MeshDeps } from '../../core/types.ts'
import { createConnectQuery, shownUrl } from '../consul-get.ts'
import type { ConsulOptions } from '../consul-options.ts'
import type { RunQuery } from '../consul-query.ts'
import { ConsulConnectionLimit, ConsulDenied, createAgent, createQuery, PERMISSION } from '../consul-query.ts'
import { QueryLimiter, queryLimiterTiming } from './query-limiter.ts'

export class ConsulClient {
  readonly datacenter: string | undefined
  readonly wait: number
  readonly #options: ConsulOptions
  readonly #agent: http.Agent
  readonly #log: Logger
  readonly #limiter: QueryLimiter
  /**
   * Sources whose last query failed, by datacenter: one may be unavailable while others behind the same agent respond.
   */
  readonly #lost = new Map<string, Set<object>>()
  readonly #denied = new Map<string, Set<object>>()

  constructor(options: ConsulOptions, { log, now }: Pick<MeshDeps, 'log' | 'now'>, timing = queryLimiterTiming) {
    this.datacenter = options.datacenter
    this.wait = options.wait
    this.#options = options
    this.#agent = createAgent(options)
    this.#log = log
    this.#limiter = new QueryLimiter(this.#agent, log, now, timing)
  }

  /** Returns the query function of one service, or of its Connect proxies. All of them share one HTTP agent. */
  queryOf(connect = false): RunQuery {
    const create = connect ? createConnectQuery : createQuery
    return this.#limiter.wrap(create(this.#options, this.#agent))
  }

  /**
   * Logs a failed query. `hasInstances` is false while the source has no instance: at a start without a discovery snapshot.
   */
  failed(
    who: object,
    { service, datacenter }: { service: string; datacenter: string | undefined },
    error: unknown,
    hasInstances: boolean
  ): void {
    // Logged already by `QueryLimiter`, with what to do.
    if (error instanceof ConsulConnectionLimit) return
    const fields = {
      url: shownUrl(this.#options.url),
      service,
      ...(datacenter && { datacenter }),
      err: asError(error)
    }
    const denied = error instanceof ConsulDenied
    const group = groupOf(denied ? this.#denied : this.#lost, datacenter)
    if (group.size === 0) {
      if (denied) this.#log.warn(fields, `Consul refuses to list instances: ${PERMISSION}`)
      else {
        const consequence = hasInstances
          ? 'services keep the instances last known'
          : 'services without known instances respond with 503 until Consul is available'
        this.#log.warn(fields, `Consul unavailable; ${consequence}`)
      }
    }
    group.add(who)
  }

  succeeded(who: object, datacenter: string | undefined): void {
    const fields = { url: shownUrl(this.#options.url), ...(datacenter && { datacenter }) }
    const [lost, denied] = [groupOf(this.#lost, datacenter), groupOf(this.#denied, datacenter)]
    if (lost.delete(who) && lost.size === 0) this.#log.info(fields, 'Consul available again')
    if (denied.delete(who) && denied.size === 0) this.#log.info(fields, 'Consul accepts the token again')
  }

  forget(who: object): void {
    for (const group of [...this.#lost.values(), ...this.#denied.values()]) group.delete(who)
  }

  close(): void {
    this.#limiter.close()
    this.#agent.destroy()
  }
}

function groupOf(groups: Map<string, Set<object>>, datacenter = ''): Set<object> {
  const group = groups.get(datacenter) ?? new Set()
  groups.set(datacenter, group)
  return group
}
