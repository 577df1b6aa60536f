/**
 * Consul's health entries (`/v1/health/service/:name`) → instances. Pure, and the entries are not trusted: who may
 * register a service may write anything in it, so an entry that makes no sense is left out and harms no other.
 *
 * The scheme is https when `Service.Meta.scheme` is `https`, or, without that key, when the service has the tag
 * `https`. Where the instance lives is put in the meta under `consul-node`, `consul-dc`, `consul-region` and
 * `consul-zone` (of the locality, or else `zone` of the node's or the service's meta), and how far down the line of
 * failover datacenters that is under `failover-rank`; they win over keys of the service of that name.
 */
import { isIPv6 } from 'node:net'
import type { InstanceSpec } from '../core/types.ts'

export interface TranslateOptions {
  /** All of them are required. */
  readonly tags: readonly string[]
  /** Otherwise instances in warning state serve too, with their warning weight. */
  readonly passingOnly: boolean
  /** Sidecars and Connect-native instances: always https, whatever tags and meta of their service say. */
  readonly connect?: boolean
  /** Whatever the checks say, but for maintenance: that is somebody's will, no finding. */
  readonly ignoreChecks?: boolean
  /** The datacenter asked is not the service's own, but one to fall back on. */
  readonly failover?: { readonly datacenter: string; readonly rank: number }
}

export interface Translated {
  /** Sorted by id, so that equal sets compare equal. */
  readonly instances: readonly InstanceSpec[]
  /** Entries that Consul sent, whatever became of them. */
  readonly listed: number
  /** Entries left out because they are malformed or have no usable address. */
  readonly skipped: number
}

type Fields = Readonly<Record<string, unknown>>
type State = 'passing' | 'warning' | 'critical'
const MAX_WEIGHT = 65_535

/** Throws only when the whole answer is no list. */
export function translate(entries: unknown, options: TranslateOptions): Translated {
  if (!Array.isArray(entries)) throw new TypeError("Consul's response is not a list of instances")
  const instances = new Map<string, InstanceSpec>()
  let skipped = 0
  for (const entry of entries) {
    const found = instanceOf(fields(entry), options)
    if (!found || instances.has(found.spec.id)) skipped++
    else if (wanted(found.state, found.spec, options)) instances.set(found.spec.id, found.spec)
  }
  const sorted = [...instances.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
  return { instances: Object.freeze(sorted), listed: entries.length, skipped }
}

function wanted(state: State, spec: InstanceSpec, { tags, passingOnly }: TranslateOptions): boolean {
  if (state === 'critical' || (state === 'warning' && passingOnly)) return false
  return tags.every((tag) => spec.tags.includes(tag))
}

function instanceOf(
  entry: Fields,
  { connect = false, ignoreChecks = false, failover }: TranslateOptions
): { spec: InstanceSpec; state: State } | null {
  const node = fields(entry.Node)
  const service = fields(entry.Service)
  const state = stateOf(entry.Checks ?? [], ignoreChecks)
  const { Node: nodeName } = node
  const { ID: id } = service
  if (state === null || !isText(nodeName) || !isText(id)) return null
  const tags = Array.isArray(service.Tags) ? service.Tags.filter(isText) : []
  const meta = metaOf(service, node, nodeName, failover?.rank)
  const tls = connect || meta.scheme === 'https' || (meta.scheme === undefined && tags.includes('https'))
  const origin = originOf(
    tls ? 'https' : 'http',
    isText(service.Address) ? service.Address : node.Address,
    service.Port
  )
  if (origin === null) return null
  const weights = fields(service.Weights)
  const weight = weightOf(state === 'warning' ? weights.Warning : weights.Passing)
  // Nodes of different datacenters may have the same name.
  const unique = failover === undefined ? `${nodeName}/${id}` : `${failover.datacenter}/${nodeName}/${id}`
  return { spec: { id: unique, origin, weight, tags, meta }, state }
}

/** The worst of the checks of the node and of the service. Maintenance is a critical check, whatever it says. */
function stateOf(checks: unknown, ignored: boolean): State | null {
  if (!Array.isArray(checks)) return null
  let worst: State = 'passing'
  for (const check of checks) {
    const { CheckID: id, Status: status } = fields(check)
    if (isText(id) && (id === '_node_maintenance' || id.startsWith('_service_maintenance'))) return 'critical'
    if (ignored) continue
    if (status === 'warning') worst = 'warning'
    // A state that we do not know is no proof of health.
    else if (status !== 'passing') return 'critical'
  }
  return worst
}

/** Null unless host and port are just that: no path, credentials or zone can be smuggled into the origin. */
function originOf(scheme: string, address: unknown, port: unknown): string | null {
  if (!isText(address) || !Number.isInteger(port) || Number(port) < 1 || Number(port) > 65_535) return null
  const host = isIPv6(address) ? `[${address}]` : address
  if (!host.startsWith('[') && !/^[\w.-]+$/.test(host)) return null
  try {
    return new URL(`${scheme}://${host}:${port}`).origin
  } catch {
    return null
  }
}

function weightOf(value: unknown): number {
  return Number.isInteger(value) && Number(value) >= 0 ? Math.min(Number(value), MAX_WEIGHT) : 1
}

function metaOf(service: Fields, node: Fields, nodeName: string, rank?: number): Record<string, string> {
  const locality = fields(service.Locality ?? node.Locality)
  const zones = [locality.Zone, fields(node.Meta).zone, fields(service.Meta).zone]
  const place = Object.entries({
    'consul-node': nodeName,
    'consul-dc': node.Datacenter,
    'consul-region': locality.Region,
    'consul-zone': zones.find(isText),
    'failover-rank': rank === undefined ? undefined : String(rank)
  })
  const own = Object.entries(fields(service.Meta)).filter(([key]) => !place.some(([reserved]) => reserved === key))
  return Object.fromEntries([...own, ...place].filter((pair): pair is [string, string] => isText(pair[1])))
}

export const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {})
export const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
