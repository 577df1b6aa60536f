import type { Inbound, InboundListeners, InboundStatus } from '../seam-inbound.ts'
import type { Claims } from '../stores.ts'
import type { InboundService } from './connect/inbound.ts'
import type { MeshConfig } from './mesh.ts'
import type { Upstreams } from './upstreams.ts'

interface Listening {
  readonly name: string
  readonly connect?: { readonly service: string }
}

/** The listeners of one configuration that services reach through the mesh. Their identities outlive it. */
export class Inbounds implements InboundListeners {
  readonly #services = new Map<string, InboundService>()

  /** Claims the services; `upstreams` has the identities, which calls to other services may share. */
  constructor(
    listeners: readonly Listening[],
    { discovery = {} }: Pick<MeshConfig, 'discovery'>,
    claims: Claims,
    upstreams: Upstreams
  ) {
    for (const { name, connect } of listeners) {
      if (connect === undefined) continue
      const { service } = connect
      const inbound = claims.claim(
        'jingwei.inbound',
        { discovery, service },
        () => upstreams.inbound(service),
        (inbound) => inbound.close()
      )
      this.#services.set(name, inbound)
    }
  }

  of(listener: string): Inbound | null {
    return this.#services.get(listener) ?? null
  }

  status(): InboundStatus[] {
    return Array.from(this.#services, ([listener, inbound]) => ({ listener, ...inbound.status() }))
  }

  async ready(): Promise<void> {
    await Promise.all(Array.from(this.#services.values(), (inbound) => inbound.ready()))
  }
}
