/**
 * Decisions by Consul's intentions which services may call this one. One query returns all intentions with this service as
 * the destination, so callers that have never called are decided without another query. It is repeated every few
 * seconds, or blocks where Consul supports that. While Consul is unavailable, the last known intentions stay in force.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Admission, InboundStatus, MeshCaller } from '../../../seam-inbound.ts'
import { asError } from '../../../thrown.ts'
import type { MeshDeps } from '../../core/types.ts'
import type { Get } from '../../discovery/consul-get.ts'
import type { ConsulOptions } from '../../discovery/consul-options.ts'
import { messageOf } from '../../discovery/loop.ts'
import type { Intention } from './intention-list.ts'
import { governing, intentionsIn } from './intention-list.ts'
import { decisionOf, intentionsOf } from './intention-query.ts'
import type { SpiffeId } from './spiffe.ts'
import { Watch } from './watch.ts'

/** Intentions of one response, and the decision for callers without one. */
interface Rules {
  readonly listed: readonly Intention[]
  readonly otherwise: Admission
}

/** A caller with the last decision about it. One object per connection. */
export class Caller implements MeshCaller {
  readonly id: string
  readonly service: string
  readonly namespace: string
  /** Rules of the last decision. */
  decidedBy: Rules | null = null
  admission: Admission = 'unknown'

  constructor(id: string, { service, namespace }: SpiffeId) {
    this.id = id
    this.service = service
    this.namespace = namespace
  }
}

export class Callers {
  readonly #service: string
  readonly #get: Get
  readonly #deps: MeshDeps
  readonly #watch: Watch
  #rules: Rules | null = null
  #error: string | null = null
  #waiting: (() => void)[] = []

  constructor(service: string, get: Get, consul: ConsulOptions, deps: MeshDeps) {
    this.#service = service
    this.#get = get
    this.#deps = deps
    const question = {
      ...intentionsOf(service, 'destination'),
      take: (body: unknown) => this.#take(body),
      failed: (error: unknown) => this.#failed(error)
    }
    this.#watch = new Watch(question, get, consul, deps)
  }

  start(): void {
    this.#watch.start()
  }

  close(): Promise<void> {
    this.#waiting = []
    return this.#watch.close()
  }

  /** Calls back once Consul has responded; at once if it has. */
  whenReady(then: () => void): void {
    if (this.#rules !== null) then()
    else this.#waiting.push(then)
  }

  /** Returns the current decision. It is computed once per caller and response of Consul. */
  admit(caller: Caller): Admission {
    const rules = this.#rules
    if (rules === null) return 'unknown'
    if (caller.decidedBy !== rules) {
      const { service: name, namespace } = caller
      const intention = governing(rules.listed, 'source', { name, namespace })
      caller.admission = intention === null ? rules.otherwise : admissionOf(intention)
      caller.decidedBy = rules
    }
    return caller.admission
  }

  status(): Pick<InboundStatus, 'rulesError' | 'rules' | 'otherwise'> {
    const { listed = [], otherwise = 'unknown' } = this.#rules ?? {}
    const byPrecedence = [...listed].sort((a, b) => b.precedence - a.precedence)
    return {
      rulesError: this.#error ?? (this.#rules === null ? 'Consul has not responded yet' : null),
      rules: byPrecedence.map((intention) => ({ source: sourceOf(intention), admission: admissionOf(intention) })),
      otherwise
    }
  }

  async #take(body: unknown): Promise<void> {
    const listed = intentionsIn(body, this.#service)
    const rules: Rules = { listed, otherwise: await this.#default(listed) }
    if (this.#error !== null) this.#deps.log.info({ service: this.#service }, 'Consul intentions available again')
    this.#error = null
    if (isDeepStrictEqual(rules, this.#rules)) return
    this.#rules = rules
    for (const then of this.#waiting.splice(0)) then()
    const fields = { service: this.#service, intentions: listed.length, otherwise: rules.otherwise }
    this.#deps.log.info(fields, `Consul intentions for callers of ${this.#service} changed`)
    for (const { verdict, ...intention } of listed) {
      if (verdict !== 'unknown') continue
      const source = sourceOf({ verdict, ...intention })
      this.#deps.log.warn(
        { service: this.#service, source },
        `Consul intention ${source} → ${this.#service} depends on paths, methods or headers, which are not evaluated: it denies`
      )
    }
  }

  /** Returns the decision of Consul for callers without an intention, which is the same for all of them. */
  async #default(listed: readonly Intention[]): Promise<Admission> {
    // A name that no intention has.
    let source = 'any-caller'
    while (listed.some(({ source: { name } }) => name === source)) source += '-'
    const decision = await decisionOf(this.#get, { source, destination: this.#service }, this.#watch.signal)
    if (decision === null) throw new TypeError("Consul's response is not a decision about intentions")
    return decision
  }

  #failed(error: unknown): void {
    if (this.#error === null) {
      const consequence = this.#rules === null ? 'no caller is known to be allowed' : 'using the last known ones'
      const fields = { service: this.#service, err: asError(error) }
      this.#deps.log.warn(fields, `Consul intentions for callers of ${this.#service} unavailable; ${consequence}`)
    }
    this.#error = messageOf(error)
  }
}

const sourceOf = ({ source: { name, namespace } }: Intention) =>
  namespace === 'default' ? name : `${namespace}/${name}`

/** Returns the decision of an intention. This process is the last to decide, so a condition that it does not evaluate denies. */
const admissionOf = ({ verdict }: Intention): Admission => (verdict === 'unknown' ? 'denied' : verdict)
