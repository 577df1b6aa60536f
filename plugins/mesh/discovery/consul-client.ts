/**
 * The way to Consul's agent for all services, with one log line when it, or a datacenter behind it, is lost or back
 * rather than one per service.
 */
import type http from 'node:http'
import type { ConsulOptions } from '../../../config/schema.ts'
import { asError } from '../../thrown.ts'
import type { Logger, MeshDeps } from '../core/types.ts'
import type { Ask } from './consul-ask.ts'
import { ConsulCrowded, ConsulDenied, createAgent, createAsk, PERMISSION } from './consul-ask.ts'
import { createConnectAsk, shownUrl } from './consul-get.ts'
import { Turns, turnsTiming } from './consul-turns.ts'

export class ConsulClient {
  readonly datacenter: string | undefined
  readonly wait: number
  readonly #options: ConsulOptions
  readonly #agent: http.Agent
  readonly #log: Logger
  readonly #turns: Turns
  /** Sources whose last query failed, by datacenter: one may be unavailable while others behind the same agent respond. */
  readonly #lost = new Map<string, Set<object>>()
  readonly #denied = new Map<string, Set<object>>()

  constructor(options: ConsulOptions, { log, now }: Pick<MeshDeps, 'log' | 'now'>, timing = turnsTiming) {
    this.datacenter = options.datacenter
    this.wait = options.wait
    this.#options = options
    this.#agent = createAgent(options)
    this.#log = log
    this.#turns = new Turns(this.#agent, log, now, timing)
  }

  /** A way to ask for one service, or for what speaks Connect for it. All have one agent. */
  asker(connect = false): Ask {
    const create = connect ? createConnectAsk : createAsk
    return this.#turns.wrap(create(this.#options, this.#agent))
  }

  failed(
    who: object,
    { service, datacenter }: { service: string; datacenter: string | undefined },
    error: unknown
  ): void {
    // Told already, with what to do.
    if (error instanceof ConsulCrowded) return
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
      else this.#log.warn(fields, 'Consul unavailable; services keep the instances last known')
    }
    group.add(who)
  }

  answered(who: object, datacenter: string | undefined): void {
    const fields = { url: shownUrl(this.#options.url), ...(datacenter && { datacenter }) }
    const [lost, denied] = [groupOf(this.#lost, datacenter), groupOf(this.#denied, datacenter)]
    if (lost.delete(who) && lost.size === 0) this.#log.info(fields, 'Consul available again')
    if (denied.delete(who) && denied.size === 0) this.#log.info(fields, 'Consul accepts the token again')
  }

  forget(who: object): void {
    for (const group of [...this.#lost.values(), ...this.#denied.values()]) group.delete(who)
  }

  close(): void {
    this.#turns.close()
    this.#agent.destroy()
  }
}

function groupOf(groups: Map<string, Set<object>>, datacenter = ''): Set<object> {
  const group = groups.get(datacenter) ?? new Set()
  groups.set(datacenter, group)
  return group
}
