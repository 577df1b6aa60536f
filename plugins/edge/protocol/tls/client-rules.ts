import { hostKey, MAX_NAME, writtenHostKey } from '../../../../config/host-name.ts'
import type { ClientCertificateOptions, TlsOptions } from '../../../../config/schema/tls.ts'

/** Rule for the client certificates of a host. */
export interface ClientRule {
  /** The same for the same mode and file of authorities, also in another configuration. */
  readonly id: string
  readonly mode: 'require' | 'request' | 'none'
  /** Authorities that sign the certificates, in PEM; null for none. */
  readonly ca: string | null
}

/** The part of a listener's options that the rules come from. */
type ClientOptions = Pick<TlsOptions, 'ca' | 'clientCertificate' | 'hosts'>

/** Returns the file with the authorities for clients of the listener, or undefined. */
const listenerCa = ({ ca, clientCertificate }: ClientOptions) => ca ?? clientCertificate?.ca

/** Returns the files of authorities that the rules of a listener need. */
export function authorityFiles(tls: ClientOptions): string[] {
  const files = [listenerCa(tls), ...tls.hosts.map(({ clientCertificate }) => clientCertificate.ca)]
  return [...new Set(files.filter((file) => file !== undefined))]
}

/** Rules for client certificates by host. Wildcards stand for all hosts below, as in `match.hosts` of routes. */
export class ClientRules {
  /** The rule of all other hosts, and of connections without a server name. */
  readonly fallback: ClientRule
  /** True if a host asks for certificates. */
  readonly ask: boolean
  /** True if hosts have different rules. */
  readonly differ: boolean
  readonly #exact = new Map<string, ClientRule>()
  readonly #wildcards = new Map<string, ClientRule>()

  /** `readCa` returns the content of a file. */
  constructor(tls: ClientOptions, readCa: (file: string) => string) {
    const rules = new Map<string, ClientRule>()
    const ca = listenerCa(tls)
    const ruleOf = ({ mode, ca: own = ca }: ClientCertificateOptions): ClientRule => {
      const file = mode === 'none' ? undefined : own
      const id = `${mode} ${file ?? ''}`
      const rule = rules.get(id) ?? { id, mode, ca: file === undefined ? null : readCa(file) }
      rules.set(id, rule)
      return rule
    }
    this.fallback = ruleOf(tls.clientCertificate ?? { mode: ca === undefined ? 'none' : 'require' })
    for (const { names, clientCertificate } of tls.hosts) {
      const rule = ruleOf(clientCertificate)
      for (const name of names) {
        const key = writtenHostKey(name)
        if (key !== null) (name.startsWith('*.') ? this.#wildcards : this.#exact).set(key, rule)
      }
    }
    this.ask = [...rules.values()].some(({ mode }) => mode !== 'none')
    this.differ = rules.size > 1
  }

  /** Returns the rule of a host: a server name, or the value of Host. */
  of(host: string): ClientRule {
    if (!this.differ) return this.fallback
    const key = hostKey(host)
    const exact = this.#exact.get(key)
    if (exact !== undefined || this.#wildcards.size === 0 || key.length > MAX_NAME) return exact ?? this.fallback
    for (let dot = key.indexOf('.'); dot !== -1; dot = key.indexOf('.', dot + 1)) {
      const rule = this.#wildcards.get(key.slice(dot + 1))
      if (rule !== undefined) return rule
    }
    return this.fallback
  }
}
