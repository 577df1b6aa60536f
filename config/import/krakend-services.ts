/** Services of KrakenD's backends. */
import { krakendCredentials } from './client-credentials.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Services by their hosts: each list of hosts is one service. */
export class Services {
  readonly #draft: Draft
  readonly #known = new Map<string, string>()

  constructor(draft: Draft) {
    this.#draft = draft
  }

  /** Backends with different credentials are different services. */
  of(hosts: readonly string[], backend: Foreign): string {
    const config = backend.map('extra_config')?.map('auth/client-credentials')
    const credentials = config?.has('token_url') ? krakendCredentials(config) : undefined
    const isDns = backend.text('sd') === 'dns'
    const key = `${hosts.join(' ')} ${isDns} ${JSON.stringify(credentials) ?? ''}`
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const [first = ''] = hosts
    const name = this.#draft.name('service', first.replace(/^https?:\/\//, '').replace(/:\d+$/, ''))
    this.#known.set(key, name)
    const service: Settings = {
      ...(isDns
        ? { dns: { host: first.replace(/^https?:\/\/|:\d+$/g, ''), srv: true } }
        : { instances: hosts.map((host) => (host.includes('://') ? host : `http://${host}`)) }),
      ...(credentials && { mesh: { credentials } })
    }
    this.#draft.services[name] = service
    if (credentials)
      this.#draft.note(service, `the client secret of ${name}: put it in a variable, or in clientSecretFile`)
    return name
  }
}
