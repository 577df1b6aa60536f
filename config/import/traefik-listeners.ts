/** Listeners for the entry points of Traefik, with the certificates and options of its `tls`. */
import type { Draft } from './draft.ts'
import { goDuration, goMs } from './durations.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { oneOrAll } from './patterns.ts'
import { tlsVersions } from './traefik-transport.ts'
import type { Settings } from './yaml-text.ts'

interface EntryPoint {
  readonly name: string
  readonly settings: Settings
  /** Middlewares of all routers on it. */
  readonly middlewares: readonly string[]
  readonly isDefault: boolean
  /** Options of TLS of all its routers. */
  readonly options?: string | undefined
  isSecure: boolean
}

/** Names of entry points for all clients. */
const usual = /^(?:web|websecure|https?)$/i

/** The entry points of a file. Without any, there is one listener, and routers name none. */
export class EntryPoints {
  readonly #all = new Map<string, EntryPoint>()
  readonly #draft: Draft
  /** True if some routers name entry points, and others do not. */
  readonly #areNamed: boolean

  constructor(root: Foreign, http: Foreign | undefined, draft: Draft) {
    this.#draft = draft
    for (const [name, fields] of root.named('entryPoints')) this.#add(name, fields)
    const routers = http?.named('routers') ?? []
    this.#areNamed = routers.some(([, router]) => !router.has('entryPoints'))
    if (this.#all.size === 0) this.#assume(new Set(routers.flatMap(([, router]) => router.texts('entryPoints'))))
    for (const [, router] of routers) {
      if (!router.has('tls')) continue
      for (const entry of this.#named(router.texts('entryPoints'))) entry.isSecure = true
    }
  }

  #add(name: string, fields: Foreign): void {
    const address = fields.text('address') ?? ''
    const [, host = '', port = ''] = /^(.*?):(\d+)(?:\/tcp)?$/.exec(address) ?? []
    const settings: Settings = { name: name.toLowerCase().replace(/[^a-z0-9]+/g, '-') }
    if (port === '') {
      this.#draft.note(null, `entryPoint ${name}: address ${address}: not converted`)
      return
    }
    if (host !== '') settings.host = host.replace(/^\[|\]$/g, '')
    settings.port = Number(port)
    const forwarded = fields.map('forwardedHeaders')
    const trusted = forwarded?.texts('trustedIPs') ?? []
    if (trusted.length > 0) settings.trustProxy = trusted
    if (forwarded?.flag('insecure') === true)
      this.#draft.note(settings, `entryPoint ${name}: forwardedHeaders.insecure: write trustProxy with your proxies`)
    const ofHttp = fields.map('http')
    const redirection = ofHttp?.map('redirections')?.map('entryPoint')
    const to = redirection?.text('to')
    if (to !== undefined) {
      const port = /^:(\d+)$/.exec(to)?.[1]
      const isHttp = redirection!.text('scheme') === 'http'
      redirection!.skip('permanent', 'priority')
      if (isHttp) this.#draft.note(settings, `entryPoint ${name}: a redirect to http: not converted`)
      else settings.redirect = port === undefined || port === '443' ? 'https' : { port: Number(port) }
    }
    if (fields.has('proxyProtocol')) {
      fields.skip('proxyProtocol')
      this.#draft.undecided(
        settings,
        `entryPoint ${name}: proxyProtocol: not converted; clients have the address of the proxy`
      )
    }
    addTimeouts(fields, settings)
    fields.skip('http2', 'http3', 'udp', 'reusePort', 'observability')
    ofHttp?.skip('encodeQuerySemicolons', 'sanitizePath', 'maxHeaderBytes', 'encodedCharacters')
    const isSecure = ofHttp?.has('tls') === true
    const tls = typeof ofHttp?.value('tls') === 'object' ? ofHttp.map('tls') : undefined
    const options = tls?.text('options')
    tls?.skip('certResolver', 'domains')
    const middlewares = (ofHttp?.texts('middlewares') ?? []).map((each) => each.split('@', 1)[0]!)
    const isDefault = fields.flag('asDefault') === true
    this.#all.set(name, { name, settings, middlewares, isSecure, isDefault, options })
  }

  /** Adds entry points that routers name, and that are in the other file of Traefik, the static configuration. */
  #assume(names: ReadonlySet<string>): void {
    if (names.size < 2) return
    for (const [index, name] of [...names].entries()) {
      const isSecure = /secure|https|tls|443/i.test(name)
      const port = isSecure ? 443 : index < 2 ? 80 : 8080 + index
      const settings: Settings = { name: name.toLowerCase().replace(/[^a-z0-9]+/g, '-'), port }
      this.#draft.note(settings, `entryPoint ${name} is not in this file: port ${port} is assumed`)
      this.#all.set(name, { name, settings, middlewares: [], isDefault: false, isSecure })
    }
  }

  /** Returns the entry points of a router: those that it names, else the default ones, else all. */
  #named(names: readonly string[]): EntryPoint[] {
    const all = [...this.#all.values()]
    if (names.length > 0) return all.filter(({ name }) => names.includes(name))
    const defaults = all.filter(({ isDefault }) => isDefault)
    return defaults.length > 0 ? defaults : all
  }

  /** Returns the entry points of a router that have no listener here, so that it would be on listeners that it does not name. */
  missing(names: readonly string[]): string[] {
    const isUsual = (name: string) => this.#all.size === 0 && (!this.#areNamed || usual.test(name))
    return names.filter((name) => !this.#all.has(name) && !isUsual(name))
  }

  /** Returns the listeners of a router; none if it is on all of them. */
  listenersOf(names: readonly string[]): string[] {
    const named = this.#named(names)
    return named.length === this.#all.size ? [] : named.map(({ settings }) => String(settings.name))
  }

  middlewaresOf(names: readonly string[]): string[] {
    return [...new Set(this.#named(names).flatMap(({ middlewares }) => middlewares))]
  }

  /** Returns the options of TLS that the entry points of a router have. */
  optionsOf(names: readonly string[]): string | undefined {
    return this.#named(names).find(({ options }) => options !== undefined)?.options
  }

  /** Returns true if a `tls` of routers has a listener. */
  get isSecure(): boolean {
    return [...this.#all.values()].some(({ isSecure }) => isSecure)
  }

  /** Writes the listeners. */
  finish(tls: Foreign | undefined): void {
    const written = tlsOf(tls, this.#draft)
    const secure = [...this.#all.values()].filter(({ isSecure }) => isSecure)
    for (const { settings } of secure) Object.assign(settings, { http2: true, tls: { ...written.settings } })
    if (this.#all.size > 0) {
      this.#draft.listeners.push(...[...this.#all.values()].map(({ settings }) => settings))
      for (const { settings } of secure) {
        for (const text of written.undecided) this.#draft.undecided(settings, text)
        if (!written.hasCertificate) {
          ;(settings.tls as Settings).folders = ['/etc/letsencrypt/live']
          this.#draft.note(settings, 'tls: no certificates in this file; an ACME client writes them into tls.folders')
        }
      }
    } else if (written.hasCertificate) {
      Object.assign(this.#draft.listen, { port: 443, http2: true, tls: written.settings })
      for (const text of written.undecided) this.#draft.undecided(this.#draft.listen, text)
    } else for (const text of written.undecided) this.#draft.undecided(null, text)
  }
}

/** Adds the timeouts of clients, and of a shutdown. */
function addTimeouts(fields: Foreign, settings: Settings): void {
  const transport = fields.map('transport')
  const timeouts = transport?.map('respondingTimeouts')
  const cycle = transport?.map('lifeCycle')
  const timing = (of: Foreign | undefined, key: string, name: string): Settings => {
    const text = of?.text(key)
    return text === undefined || goMs(text) === 0 ? {} : { [name]: goDuration(text) }
  }
  const ofClients = { ...timing(timeouts, 'readTimeout', 'body'), ...timing(timeouts, 'idleTimeout', 'keepAlive') }
  const drain = { ...timing(cycle, 'requestAcceptGraceTimeout', 'delay'), ...timing(cycle, 'graceTimeOut', 'timeout') }
  timeouts?.skip('writeTimeout')
  transport?.skip('keepAliveMaxTime', 'keepAliveMaxRequests')
  if (Object.keys(ofClients).length > 0) settings.timeouts = ofClients
  if (Object.keys(drain).length > 0) settings.drain = drain
}

/** Returns the name of a cipher suite in OpenSSL; those of TLS 1.3 have the same name in both. */
function cipherOf(name: string): string {
  if (!name.includes('_WITH_')) return name
  return name
    .replace(/^TLS_(?:RSA_WITH_)?/, '')
    .replace('_WITH_', '-')
    .replace(/AES_(\d+)/, 'AES$1')
    .replace('CHACHA20_POLY1305_SHA256', 'CHACHA20_POLY1305')
    .replace('_CBC', '')
    .replaceAll('_', '-')
}

const clientModes: Readonly<Record<string, string>> = {
  RequireAndVerifyClientCert: 'require',
  VerifyClientCertIfGiven: 'request',
  NoClientCert: 'none'
}

function tlsOf(tls: Foreign | undefined, draft: Draft) {
  const settings: Settings = {}
  const undecided: string[] = []
  const certificates = (tls?.maps('certificates') ?? []).map(pairOf)
  const stores = tls?.map('stores')
  const first = stores?.map('default')?.map('defaultCertificate')
  if (first !== undefined) Object.assign(settings, pairOf(first))
  else if (certificates.length === 1) Object.assign(settings, certificates.pop())
  if (certificates.length > 0) settings.certificates = certificates
  const options = tls?.map('options')
  for (const [name, option] of tls?.named('options') ?? []) {
    if (name === 'default') Object.assign(settings, optionsOf(option, draft, undecided))
    else {
      options!.skip(name)
      option.skip(...option.keys)
      undecided.push(
        `tls.options.${name}: not converted; write listen.tls, or listen.tls.hosts for the hosts of its routers`
      )
    }
  }
  return { settings, undecided, hasCertificate: settings.cert !== undefined || settings.certificates !== undefined }
}

function pairOf(pair: Foreign): Settings {
  pair.skip('stores')
  return { cert: pair.text('certFile') ?? '', key: pair.text('keyFile') ?? '' }
}

function optionsOf(option: Foreign, draft: Draft, undecided: string[]): Settings {
  const [least, most] = [option.text('minVersion'), option.text('maxVersion')]
  if (least === 'VersionTLS10' || least === 'VersionTLS11')
    draft.note(null, `${option.where}.minVersion ${least}: TLS 1.2 is the oldest version here`)
  const ciphers = option.texts('cipherSuites').map(cipherOf)
  const client = option.map('clientAuth')
  const authorities = client?.texts('caFiles') ?? []
  const type =
    client?.text('clientAuthType') ?? (authorities.length > 0 ? 'RequireAndVerifyClientCert' : 'NoClientCert')
  const mode = member(clientModes, type)
  if (mode === undefined || authorities.length > 1)
    undecided.push(
      `${option.where}.clientAuth: ${type}, ${authorities.join(', ')}: write listen.tls.clientCertificate with one file`
    )
  option.skip('curvePreferences', 'alpnProtocols', 'disableSessionTickets', 'preferServerCipherSuites')
  const wanted = { minVersion: least, maxVersion: most }
  return {
    ...Object.fromEntries(
      Object.entries(wanted).flatMap(([key, value]) => {
        const version = value === undefined ? undefined : member(tlsVersions, value)
        return version === undefined ? [] : [[key, version]]
      })
    ),
    ...(ciphers.length > 0 && { ciphers }),
    ...(option.flag('sniStrict') === true && { strict: true }),
    ...(mode !== undefined && mode !== 'none' && { clientCertificate: { mode, ca: oneOrAll(authorities) } })
  }
}
