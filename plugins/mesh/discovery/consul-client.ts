/**
 * One connection to Consul for all services, with one log line when Consul is lost or back rather than one per service.
 */
import type http from 'node:http'
import type { ConsulOptions } from '../../../config/schema.ts'
import type { Logger } from '../types.ts'
import type { Ask } from './consul-ask.ts'
import { ConsulDenied, createAgent, createAsk, PERMISSION } from './consul-ask.ts'
import { createConnectAsk } from './consul-get.ts'
import { messageOf } from './loop.ts'

export class ConsulClient {
  readonly datacenter: string | undefined
  readonly wait: number
  readonly #options: ConsulOptions
  readonly #agent: http.Agent
  readonly #log: Logger
  readonly #lost = new Set<object>()
  readonly #denied = new Set<object>()

  constructor(options: ConsulOptions, log: Logger) {
    this.datacenter = options.datacenter
    this.wait = options.wait
    this.#options = options
    this.#agent = createAgent(options)
    this.#log = log
  }

  /** A way to ask for one service, or for what speaks Connect for it. All have one agent. */
  asker(connect = false): Ask {
    return connect ? createConnectAsk(this.#options, this.#agent) : createAsk(this.#options, this.#agent)
  }

  failed(who: object, service: string, error: unknown): void {
    const { url } = this.#options
    const fields = { url, service, err: messageOf(error) }
    const denied = error instanceof ConsulDenied
    const group = denied ? this.#denied : this.#lost
    if (group.size === 0) {
      if (denied) this.#log.warn(fields, `Consul refuses to say where services are: ${PERMISSION}`)
      else this.#log.warn(fields, 'Consul is lost; services go on with the instances last known')
    }
    group.add(who)
  }

  answered(who: object): void {
    const { url } = this.#options
    if (this.#lost.delete(who) && this.#lost.size === 0) this.#log.info({ url }, 'Consul is back')
    if (this.#denied.delete(who) && this.#denied.size === 0) this.#log.info({ url }, 'Consul accepts the token')
  }

  forget(who: object): void {
    this.#lost.delete(who)
    this.#denied.delete(who)
  }

  close(): void {
    this.#agent.destroy()
  }
}
