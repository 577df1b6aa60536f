import type { IncomingHttpHeaders } from 'node:http'
import type { CollapseOptions } from '../../../config/schema.ts'
import { cacheControl, varyOf } from '../answering/cache-control.ts'
import type { GroupContext } from '../answering/collapse-group.ts'
import { Group } from '../answering/collapse-group.ts'
import type { CollapseKey } from '../answering/collapse-key.ts'
import { collapseKey } from '../answering/collapse-key.ts'
import { counterOf } from '../counters.ts'
import type { Layer } from '../layer.ts'
import { headerOf } from '../request-facts.ts'
import type { DispatchOptions } from '../types.ts'

/** The schema's, for `collapse: true`. */
const defaults: CollapseOptions = {
  headers: ['accept', 'accept-encoding', 'accept-language', 'authorization', 'cookie', 'range'],
  maxBody: 1024 * 1024
}

/**
 * Identical calls in flight share one answer: those that come before its headers do. undici's `deduplicate` would cut
 * off slow clients, and all of them with the one who asked first.
 */
export const collapse: Layer = (service, policy, { meter }) => {
  if (!policy.collapse) return null
  const options = policy.collapse === true ? defaults : policy.collapse
  const key = collapseKey(options.headers)
  const collapsed = {
    name: 'jingwei_mesh_collapsed_total',
    help: 'Calls that were given the answer to an identical one.'
  }
  const count = counterOf(meter, collapsed, { service: service.name })
  const fits = fitting(key)
  return (dispatch) => {
    const groups = new Map<string, Group>()
    const context: GroupContext = { dispatch, fits, maxBody: options.maxBody, count }
    return (opts, handler) => {
      const text = key.of(opts)
      if (text === null) return dispatch(opts, handler)
      const group = groups.get(text)
      if (group !== undefined) {
        group.join(opts, handler)
        return true
      }
      const first = new Group(context, () => groups.delete(text))
      groups.set(text, first)
      return first.begin(opts, handler)
    }
  }
}

/** What the answer says about who may share it. */
function fitting({ names }: CollapseKey): GroupContext['fits'] {
  const byUser = names.has('authorization') && names.has('cookie')

  /** One user's answer may go to requests with the same credentials, and no others. */
  function isPersonal(opts: DispatchOptions): boolean {
    if (!byUser) return false
    const { caller } = opts
    return Boolean(caller?.consumer ?? headerOf(opts, 'authorization') ?? headerOf(opts, 'cookie'))
  }

  return (headers: IncomingHttpHeaders, asked, other) => {
    // A session that is born here is one client's.
    if (headers['set-cookie'] !== undefined) return false
    // May never end, and wants to be seen at once.
    if (headers['content-type']?.startsWith('text/event-stream')) return false
    const directives = cacheControl(headers['cache-control'])
    if ((directives.has('private') || directives.has('no-store')) && !isPersonal(asked)) return false
    const vary = varyOf(headers)
    return vary?.every((name) => names.has(name) || headerOf(asked, name) === headerOf(other, name)) ?? false
  }
}
