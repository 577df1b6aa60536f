import type { IncomingHttpHeaders } from 'node:http'
import { defaultsOf } from '../../../../config/schema/kit.ts'
import type { MeshConcern } from '../../concern.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf } from '../../core/metrics.ts'
import { headerOf } from '../../core/request-fields.ts'
import { cacheControl, varyOf } from '../../core/sharing/cache-control.ts'
import type { Identity } from '../../core/sharing/identity.ts'
import { identityOf, isPersonal } from '../../core/sharing/identity.ts'
import type { GroupContext } from './group.ts'
import { Group } from './group.ts'
import { Collapse, collapseKey } from './options.ts'

/** Options of `collapse: true`. */
const defaults = defaultsOf(Collapse)

/**
 * Identical calls in flight share one response if they begin before its headers arrive. undici's `deduplicate` would
 * abort slow clients, and all of them with the first one.
 */
export const collapse: Layer = (service, policy, { meter, perRequestHeaders = [] }) => {
  if (!policy.collapse) return null
  const options = policy.collapse === true ? defaults : policy.collapse
  const identity = identityOf({ ...options, perRequest: perRequestHeaders })
  const collapsed = {
    name: 'jingwei_mesh_collapsed_total',
    help: 'Calls that received the response to an identical call.'
  }
  const count = counterOf(meter, collapsed, { service: service.name })
  const sharing = sharingBy(identity)
  return (dispatch) => {
    const groups = new Map<string, Group>()
    const context: GroupContext = {
      service: service.name,
      dispatch,
      sharing,
      maxBody: options.maxBody,
      count,
      report: (error, requestId) => service.report(error, requestId)
    }
    return (opts, handler) => {
      const same = identity.of(opts)
      if (same === null) return dispatch(opts, handler)
      const key = `${opts.method} ${same}`
      const group = groups.get(key)
      if (group !== undefined) {
        group.join(opts, handler)
        return true
      }
      const first = new Group(context, () => groups.delete(key))
      groups.set(key, first)
      return first.begin(opts, handler)
    }
  }
}

/**
 * Returns whether a status may concern one request only: its size, its age, a limit on its client. 404 and 410 concern
 * the resource; a 5xx concerns the service, whose load identical requests must not increase.
 */
function isOfOneRequest(status: number): boolean {
  return status >= 400 && status < 500 && status !== 404 && status !== 410
}

/** Returns the function that decides with which other requests a response may be shared. */
function sharingBy({ ignored }: Identity): GroupContext['sharing'] {
  return (status, headers: IncomingHttpHeaders, asked) => {
    if (isOfOneRequest(status)) return null
    // A cookie, such as one of a new session, is meant for one client.
    if (headers['set-cookie'] !== undefined) return null
    // An event stream may never end, and must not be delayed.
    if (headers['content-type']?.startsWith('text/event-stream')) return null
    const directives = cacheControl(headers['cache-control'])
    // Identical requests have the same credentials, so they may share a private response; without credentials not.
    if ((directives.has('private') || directives.has('no-store')) && !isPersonal(asked)) return null
    const vary = varyOf(headers)
    if (vary === null) return null
    const differing = vary.filter((name) => ignored.has(name)).map((name) => [name, headerOf(asked, name)] as const)
    return (other) => differing.every(([name, value]) => headerOf(other, name) === value)
  }
}

export default { name: 'collapse', keys: [collapseKey], layer: collapse } satisfies MeshConcern
