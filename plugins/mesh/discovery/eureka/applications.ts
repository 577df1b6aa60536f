/**
 * The applications in Eureka's registry. Its JSON is made from XML: a list of one may be the item itself, and numbers and
 * booleans may be texts. The entries are not trusted: any service can register arbitrary values.
 */
import { isIPv6 } from 'node:net'
import type { InstanceSpec } from '../../core/types.ts'
import { mostInstances } from '../described.ts'
import type { Fields } from '../fields.ts'
import { fields, isText } from '../fields.ts'

/** Instances that a service wants: those of an application, or of a virtual address. */
export interface Wanted {
  readonly app?: string
  readonly vip?: string
  readonly secure: boolean
  readonly address: 'hostname' | 'ip'
}

/** Longest text that is taken from an entry. */
const longestText = 1024

const listOf = (value: unknown): readonly unknown[] =>
  Array.isArray(value) ? value : value === undefined || value === null || value === '' ? [] : [value]

const textOf = (value: unknown) => (isText(value) && value.length <= longestText ? value : null)

export class Applications {
  /** Instances by the name of their application in upper case, and by their id. */
  readonly #apps = new Map<string, Map<string, Fields>>()
  /** Number of instances by their status. */
  readonly #statuses = new Map<string, number>()
  /** Instances by their virtual addresses; null until a service wants one. */
  #vips: VipIndex | null = null
  /** Lists as they were returned, until the next change. */
  #lists: WeakMap<Wanted, readonly InstanceSpec[]> | null = null

  /** Takes the response to a query for the registry, a virtual address or one application; null: there is none. */
  constructor(body: unknown) {
    if (body === null) return
    const { applications, application } = fields(body)
    if (typeof applications !== 'object' && typeof application !== 'object')
      throw new Error('Eureka sent no applications')
    const all = application === undefined ? listOf(fields(applications).application) : [application]
    for (const app of all) for (const instance of listOf(fields(app).instance)) this.#put(fields(app), fields(instance))
  }

  /** Applies the response to a query for changes. Returns whether the hash of the registry is then that of the server. */
  apply(body: unknown): boolean {
    const { applications } = fields(body)
    if (typeof applications !== 'object') throw new Error('Eureka sent no applications')
    for (const app of listOf(fields(applications).application)) {
      for (const entry of listOf(fields(app).instance)) {
        const instance = fields(entry)
        if (instance.actionType === 'DELETED') this.#remove(fields(app), instance)
        else this.#put(fields(app), instance)
      }
    }
    return fields(applications).apps__hashcode === this.hash
  }

  /** Eureka's hash of a registry: the number of instances in each state, such as `DOWN_1_UP_4_`. */
  get hash(): string {
    const sorted = [...this.#statuses].sort(([a], [b]) => (a < b ? -1 : 1))
    return sorted.map(([status, count]) => `${status}_${count}_`).join('')
  }

  /**
   * Returns the instances that are up, sorted by id, so that equal sets compare equal; the same list as before if nothing has
   * changed since.
   */
  instancesOf(wanted: Wanted): readonly InstanceSpec[] {
    const known = this.#lists?.get(wanted)
    if (known !== undefined) return known
    const { app, vip, secure, address } = wanted
    const candidates = app === undefined ? this.#ofVip(vip!, secure) : this.#apps.get(app.toUpperCase())?.values()
    const up = [...(candidates ?? [])].filter(({ status }) => status === 'UP')
    if (up.length > mostInstances) throw new Error(`Eureka lists more than ${mostInstances} instances of one service`)
    const specs = up.flatMap((instance) => specOf(instance, secure, address) ?? [])
    const list = Object.freeze(specs.sort((a, b) => (a.id < b.id ? -1 : 1)))
    this.#lists ??= new WeakMap()
    this.#lists.set(wanted, list)
    return list
  }

  #ofVip(vip: string, secure: boolean): Iterable<Fields> {
    if (this.#vips === null) {
      this.#vips = new VipIndex()
      for (const instances of this.#apps.values()) for (const instance of instances.values()) this.#vips.add(instance)
    }
    return this.#vips.of(vip, secure)
  }

  #put(app: Fields, instance: Fields): void {
    this.#remove(app, instance)
    const name = nameOf(app, instance)
    const instances = this.#apps.get(name) ?? new Map<string, Fields>()
    this.#apps.set(name, instances)
    instances.set(idOf(instance), instance)
    this.#count(instance, 1)
    this.#vips?.add(instance)
  }

  #remove(app: Fields, instance: Fields): void {
    const name = nameOf(app, instance)
    const instances = this.#apps.get(name)
    const known = instances?.get(idOf(instance))
    this.#lists = null
    if (instances === undefined || known === undefined) return
    instances.delete(idOf(known))
    if (instances.size === 0) this.#apps.delete(name)
    this.#count(known, -1)
    this.#vips?.delete(known)
  }

  #count({ status }: Fields, change: number): void {
    const count = (this.#statuses.get(String(status)) ?? 0) + change
    if (count === 0) this.#statuses.delete(String(status))
    else this.#statuses.set(String(status), count)
  }
}

/**
 * Instances by their virtual addresses. Without it, each service would search the whole registry after each query: seconds, for
 * some hundred services and ten thousands of instances.
 */
class VipIndex {
  readonly #plain: Vips = new Map()
  readonly #secure: Vips = new Map()

  add(instance: Fields): void {
    for (const vip of namesIn(instance.vipAddress)) put(this.#plain, vip, instance)
    for (const vip of namesIn(instance.secureVipAddress)) put(this.#secure, vip, instance)
  }

  delete(instance: Fields): void {
    for (const vip of namesIn(instance.vipAddress)) remove(this.#plain, vip, instance)
    for (const vip of namesIn(instance.secureVipAddress)) remove(this.#secure, vip, instance)
  }

  /** Returns the instances of an address; with `secure`, also those that have it as their secure address only. */
  of(vip: string, secure: boolean): ReadonlySet<Fields> {
    const plain = this.#plain.get(vip) ?? new Set()
    return secure ? plain.union(this.#secure.get(vip) ?? new Set()) : plain
  }
}

type Vips = Map<string, Set<Fields>>

/** Returns the names in a list of virtual addresses. */
function namesIn(addresses: unknown): string[] {
  const text = textOf(addresses) ?? ''
  const names = text.includes(',') ? text.split(',') : [text]
  return names.map((name) => name.trim()).filter((name) => name !== '')
}

function put(vips: Vips, vip: string, instance: Fields): void {
  const instances = vips.get(vip)
  if (instances === undefined) vips.set(vip, new Set([instance]))
  else instances.add(instance)
}

function remove(vips: Vips, vip: string, instance: Fields): void {
  const instances = vips.get(vip)
  instances?.delete(instance)
  if (instances?.size === 0) vips.delete(vip)
}

const nameOf = (app: Fields, instance: Fields) => String(app.name ?? instance.app ?? '').toUpperCase()

/** Id of an instance; old clients register without one. */
const idOf = ({ instanceId, hostName }: Fields) => textOf(instanceId) ?? textOf(hostName) ?? ''

/** Returns the instance; null if it has no usable address. */
function specOf(instance: Fields, secure: boolean, address: Wanted['address']): InstanceSpec | null {
  const host = textOf(address === 'ip' ? instance.ipAddr : instance.hostName) ?? textOf(instance.hostName)
  const [plain, tls] = [portOf(instance.port), portOf(instance.securePort)]
  const port = (secure ? tls : null) ?? plain ?? tls
  if (host === null || port === null) return null
  const isSecure = port === tls && (secure || plain === null)
  const origin = originOf(isSecure ? 'https' : 'http', host, port)
  if (origin === null) return null
  const meta = metaOf(instance)
  return { id: idOf(instance), origin, weight: weightOf(meta.weight), tags: [], meta }
}

/** Returns a port that is enabled: `{ $: 8080, '@enabled': 'true' }`. */
function portOf(value: unknown): number | null {
  const { $: number, '@enabled': enabled } = fields(value)
  const port = Number(number)
  return String(enabled) === 'true' && Number.isInteger(port) && port >= 1 && port <= 65_535 ? port : null
}

function originOf(scheme: string, host: string, port: number): string | null {
  const name = isIPv6(host) ? `[${host}]` : host
  if (!name.startsWith('[') && !/^[\w.-]+$/.test(name)) return null
  return URL.canParse(`${scheme}://${name}:${port}`) ? new URL(`${scheme}://${name}:${port}`).origin : null
}

/** Returns the metadata, and the zone under `zone`: that of Spring's clients, else Amazon's. */
function metaOf({ metadata, dataCenterInfo }: Fields): Record<string, string> {
  const own = Object.entries(fields(metadata)).filter(
    (pair): pair is [string, string] => !pair[0].startsWith('@') && textOf(pair[1]) !== null
  )
  const zone = textOf(fields(metadata).zone) ?? textOf(fields(fields(dataCenterInfo).metadata)['availability-zone'])
  return { ...Object.fromEntries(own.slice(0, 100)), ...(zone !== null && { zone }) }
}

function weightOf(text: string | undefined): number {
  const weight = text === undefined || text === '' ? 1 : Number(text)
  return Number.isInteger(weight) && weight >= 0 && weight <= 65_535 ? weight : 1
}
