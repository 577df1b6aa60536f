/**
 * Pure conversion of Consul's health entries (`/v1/health/service/:name`) to instances. The entries are not trusted:
 * any service can register arbitrary values, so a malformed entry is skipped and does not affect others.
 *
 * The scheme is https if `Service.Meta.scheme` is `https` or, without that key, if the service has the tag `https`. The
 * location is put into the meta as `consul-node`, `consul-dc`, `consul-region` and `consul-zone` (of the locality, else
 * `zone` of the node's or the service's meta), and the position among the failover datacenters as `failover-rank`.
 * These replace keys of the same names in the service's own meta.
 */
import { isIPv6 } from 'node:net'
import type { InstanceSpec } from '../../core/types.ts'
import type { Fields } from '../fields.ts'
import { fields, isText } from '../fields.ts'

export interface TranslateOptions {
  /** Tags that an instance must all have. */
  readonly tags: readonly string[]
  /** If false, instances in warning state are used, too, with their warning weight. */
  readonly passingOnly: boolean
  /** Entries are sidecars and Connect-native instances, which always use https. */
  readonly connect?: boolean
  /** Ignores Consul's checks, except maintenance mode, which an operator has set. */
  readonly ignoreChecks?: boolean
  /** Failover datacenter that is queried; undefined for the service's own. */
  readonly failover?: { readonly datacenter: string; readonly rank: number }
}

interface Translated {
  /** Sorted by id, so that equal sets compare equal. */
  readonly instances: readonly InstanceSpec[]
  /** Number of entries that Consul sent. */
  readonly listed: number
  /** Number of entries skipped because they are malformed or have no usable address. */
  readonly skipped: number
}

type State = 'passing' | 'warning' | 'critical'
const MAX_WEIGHT = 65_535

/** Converts a response; throws only if it is not a list. */
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

/** Returns the worst state of the checks of node and service. A maintenance check is always critical. */
function stateOf(checks: unknown, ignored: boolean): State | null {
  if (!Array.isArray(checks)) return null
  let worst: State = 'passing'
  for (const check of checks) {
    const { CheckID: id, Status: status } = fields(check)
    if (isText(id) && (id === '_node_maintenance' || id.startsWith('_service_maintenance'))) return 'critical'
    if (ignored) continue
    if (status === 'warning') worst = 'warning'
    // Treat an unknown state as critical.
    else if (status !== 'passing') return 'critical'
  }
  return worst
}

/** Returns the origin; null unless host and port are valid, so that no path, credentials or zone gets into it. */
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
