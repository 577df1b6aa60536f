/** Locality of the gateway: the configured one, or else that of its Consul agent. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { DiscoveryOptions } from '../../../config/schema.ts'
import { asError } from '../../thrown.ts'
import type { Locality, MeshDeps } from '../core/types.ts'
import { ANSWER_TIMEOUT } from './consul-blocking.ts'
import { createGet, shownUrl } from './consul-get.ts'
import type { ConsulOptions } from './consul-options.ts'
import { createAgent } from './consul-query.ts'
import { fields, isText } from './fields.ts'
import { backoff } from './loop.ts'

type LocalityOptions = Pick<DiscoveryOptions, 'consul' | 'locality'>

/** Longest pause between two queries. */
const LONGEST_PAUSE = 60_000
const PERMISSION = 'the token needs agent:read, or set discovery.locality'

export class OwnLocality {
  current: Locality
  readonly #consul: ConsulOptions | undefined
  readonly #deps: Pick<MeshDeps, 'log' | 'random'>
  readonly #onKnown: () => void
  readonly #abort = new AbortController()
  #running: Promise<void> | null = null

  /** Takes a callback, `onKnown`, which is called when `current` changes. */
  constructor({ consul, locality = {} }: LocalityOptions, deps: Pick<MeshDeps, 'log' | 'random'>, onKnown: () => void) {
    const { datacenter = null, zone = null } = locality
    this.current = { datacenter, zone }
    this.#consul = consul
    this.#deps = deps
    this.#onKnown = onKnown
  }

  /** Queries the agent until it responds, if a service needs the locality (`wanted`) and it is not configured. */
  start(wanted: boolean): void {
    const { datacenter, zone } = this.current
    if (!wanted || this.#consul === undefined || (datacenter !== null && zone !== null)) return
    this.#running ??= this.#ask(this.#consul)
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#running
  }

  async #ask(consul: ConsulOptions): Promise<void> {
    const { signal } = this.#abort
    const { log, random } = this.#deps
    const agent = createAgent(consul)
    const get = createGet(consul, agent)
    const options = { timeout: ANSWER_TIMEOUT, signal, permission: PERMISSION }
    for (let failures = 0; !signal.aborted; ) {
      try {
        const { body } = await get('/agent/self', {}, options)
        this.#take(localityOf(body))
        break
      } catch (error) {
        if (signal.aborted) break
        const fields = { url: shownUrl(consul.url), err: asError(error) }
        if (++failures === 1)
          log.warn(fields, 'locality unavailable from the Consul agent; no instance counts as local')
        const ms = backoff(failures, random, 1000, LONGEST_PAUSE)
        await sleep(ms, undefined, { signal, ref: false }).catch(() => {})
      }
    }
    agent.destroy()
  }

  #take({ datacenter, zone }: Locality): void {
    const { current } = this
    this.current = { datacenter: current.datacenter ?? datacenter, zone: current.zone ?? zone }
    this.#deps.log.info({ ...this.current }, 'locality of the gateway received from the Consul agent')
    this.#onKnown()
  }
}

const textOf = (value: unknown) => (isText(value) ? value : null)

/** Reads the locality from `/v1/agent/self`; only newer agents have one, all have node meta. */
export function localityOf(self: unknown): Locality {
  const { Config, DebugConfig, Meta } = fields(self)
  return {
    datacenter: textOf(fields(Config).Datacenter),
    zone: textOf(fields(fields(DebugConfig).Locality).Zone) ?? textOf(fields(Meta).zone)
  }
}
