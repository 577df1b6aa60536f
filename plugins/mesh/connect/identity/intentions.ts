/**
 * Permissions of the gateway to call services, by Consul's intentions. One query for all services, with the gateway as
 * the source, is repeated every few seconds: Consul has no blocking query for it. The governing intention is chosen by
 * precedence, as Consul does; decisions that only a sidecar can make are left to it.
 */

import { asError } from '../../../thrown.ts'
import type { MeshDeps } from '../../core/types.ts'
import type { Get } from '../../discovery/consul-get.ts'
import type { ConsulOptions } from '../../discovery/consul-options.ts'
import { messageOf } from '../../discovery/loop.ts'
import type { Verdict } from './intention-list.ts'
import { governing, intentionsIn } from './intention-list.ts'
import { decisionOf, intentionsOf } from './intention-query.ts'
import { Watch } from './watch.ts'

/** Permission for one destination, kept up to date. `unknown` also before Consul has responded. */
export interface Permission {
  verdict: Verdict
}

export class Intentions {
  readonly #source: string
  readonly #namespace: string
  readonly #get: Get
  readonly #deps: MeshDeps
  readonly #watch: Watch
  readonly #permissions = new Map<string, Permission>()
  #error: string | null = null

  constructor(source: string, get: Get, consul: ConsulOptions, deps: MeshDeps) {
    this.#source = source
    this.#namespace = consul.namespace ?? 'default'
    this.#get = get
    this.#deps = deps
    const question = {
      ...intentionsOf(source, 'source'),
      take: (body: unknown) => this.#take(body),
      failed: (error: unknown) => this.#failed(error)
    }
    this.#watch = new Watch(question, get, consul, deps)
  }

  /** Returns the permission for a destination; the object is shared and updated. */
  to(destination: string): Permission {
    const known = this.#permissions.get(destination)
    if (known !== undefined) return known
    const permission: Permission = { verdict: 'unknown' }
    this.#permissions.set(destination, permission)
    return permission
  }

  get error(): string | null {
    return this.#error
  }

  start(): void {
    this.#watch.start()
  }

  close(): Promise<void> {
    return this.#watch.close()
  }

  async #take(body: unknown): Promise<void> {
    const listed = intentionsIn(body, this.#source)
    const open: string[] = []
    for (const name of this.#permissions.keys()) {
      const intention = governing(listed, 'destination', { name, namespace: this.#namespace })
      if (intention === null) open.push(name)
      else this.#decide(name, intention.verdict)
    }
    // Destinations without an intention have the default, which is the same for all.
    const [first] = open
    const otherwise = first === undefined ? 'unknown' : await this.#default(first)
    for (const name of open) this.#decide(name, otherwise)
    if (this.#error !== null) this.#deps.log.info({ source: this.#source }, 'Consul intentions available again')
    this.#error = null
  }

  #decide(destination: string, verdict: Verdict): void {
    const permission = this.#permissions.get(destination)!
    if (permission.verdict === verdict) return
    permission.verdict = verdict
    const fields = { source: this.#source, destination, verdict }
    this.#deps.log.info(fields, `Consul intention changed: ${this.#source} → ${destination} is now ${verdict}`)
  }

  async #default(destination: string): Promise<Verdict> {
    return (await decisionOf(this.#get, { source: this.#source, destination }, this.#watch.signal)) ?? 'unknown'
  }

  #failed(error: unknown): void {
    if (this.#error === null) {
      const fields = { source: this.#source, err: asError(error) }
      this.#deps.log.warn(fields, 'Consul intentions unavailable; using the last known ones')
    }
    this.#error = messageOf(error)
  }
}
