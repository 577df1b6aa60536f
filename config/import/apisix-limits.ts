/** Limits of APISIX, as `edge.rateLimit`. */
import type { Convert } from './apisix-scope.ts'
import { noteRefusal } from './apisix-scope.ts'
import type { Draft } from './draft.ts'
import { Foreign, member } from './foreign.ts'
import { oneOrAll } from './patterns.ts'
import { useRedis } from './redis.ts'
import type { Settings } from './yaml-text.ts'

const sources: Readonly<Record<string, string>> = { remote_addr: 'ip', consumer_name: 'consumer' }

/** Returns the property for a variable of nginx. */
function propertyOf(variable: string): string | undefined {
  const header = /^http_(\w+)$/.exec(variable)?.[1]
  return member(sources, variable) ?? (header === undefined ? undefined : `header:${header.replaceAll('_', '-')}`)
}

function sourceOf(config: Foreign, draft: Draft, route: Settings | null): Settings {
  const key = config.text('key') ?? 'remote_addr'
  const type = config.text('key_type') ?? 'var'
  if (type === 'constant') return { by: 'route' }
  const variables = type === 'var_combination' ? [...key.matchAll(/\$\{?(\w+)\}?/g)].map(([, name]) => name!) : [key]
  const by = variables.map(propertyOf)
  if (by.length === 0 || by.includes(undefined)) {
    draft.note(route, `limit by ${key}: not converted; it counts by address`)
    return {}
  }
  const all = oneOrAll(by)
  return all === 'ip' ? {} : { by: all }
}

/** Returns the store of a limit, whose Redis becomes that of the gateway. */
function storeOf(config: Foreign, draft: Draft): Settings {
  const policy = config.text('policy') ?? 'local'
  const isOpen = config.flag('allow_degradation') === true
  config.skip('sync_interval')
  if (policy === 'local') {
    config.skip(...config.keys.filter((key) => key.startsWith('redis')))
    return {}
  }
  useRedis(config, draft)
  return { store: 'redis', onFailure: isOpen ? 'open' : 'closed' }
}

function refusal(config: Foreign, draft: Draft, route: Settings | null): void {
  noteRefusal(config, 429, (text) => draft.note(route, text))
  config.skip('allow_degradation', 'show_limit_quota_header', 'nodelay')
}

const addLimit = (edge: Settings, limit: Settings): void => {
  const before = edge.rateLimit
  edge.rateLimit = before === undefined ? limit : [before, limit].flat()
}

function countOf(config: Foreign, name: string | null, route: Settings | null, draft: Draft): Settings {
  const group = config.text('group')
  const shared = group ?? name
  const algorithm = config.text('window_type') === 'sliding' && { algorithm: 'sliding-window' }
  const store = storeOf(config, draft)
  refusal(config, draft, route)
  return {
    max: config.number('count'),
    window: `${config.number('time_window') ?? 1}s`,
    ...algorithm,
    ...sourceOf(config, draft, route),
    ...(shared !== null && { name: shared.toLowerCase().replace(/[^a-z0-9]+/g, '-') }),
    ...store
  }
}

/** Returns the limit of limit-count for its options. */
export const limitCount = (options: Settings, where: string, route: Settings, draft: Draft): Settings =>
  countOf(new Foreign(options, where), null, route, draft)

export const limits: Readonly<Record<string, Convert>> = {
  'limit-count': (config, { edge, route, name }, { draft }) => {
    if (config.has('rules')) {
      config.skip(...config.keys)
      return draft.undecided(route, `${config.where}.rules: write a list of edge.rateLimit`)
    }
    addLimit(edge, countOf(config, name, route, draft))
  },
  'limit-req': (config, { edge, route }, { draft }) => {
    const rate = config.number('rate') ?? 1
    const burst = config.number('burst') ?? 0
    const isSlow = rate < 1
    const store = storeOf(config, draft)
    refusal(config, draft, route)
    addLimit(edge, {
      algorithm: 'token-bucket',
      max: isSlow ? Math.max(1, Math.round(rate * 60)) : Math.round(rate),
      window: isSlow ? '1m' : '1s',
      burst: Math.max(1, Math.round(burst)),
      ...sourceOf(config, draft, route),
      ...store
    })
  },
  'limit-conn': (config, { edge, route }, { draft }) => {
    if (Object.keys(storeOf(config, draft)).length > 0)
      draft.note(route, `${config.where}.policy: requests in flight are counted on each node; see edge.rateLimit.share`)
    refusal(config, draft, route)
    config.skip('default_conn_delay', 'only_use_default_delay', 'key_ttl')
    addLimit(edge, {
      maxConcurrent: (config.number('conn') ?? 1) + (config.number('burst') ?? 0),
      ...sourceOf(config, draft, route)
    })
  }
}
