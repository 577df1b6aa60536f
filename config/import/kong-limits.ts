/** Limits of Kong. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import type { Convert } from './kong-scope.ts'
import { oneOrAll } from './patterns.ts'
import { useRedis } from './redis.ts'
import type { Settings } from './yaml-text.ts'

/** Windows of limits by their keys. */
const periods: readonly (readonly [key: string, window: string])[] = [
  ['second', '1s'],
  ['minute', '1m'],
  ['hour', '1h'],
  ['day', '1d'],
  ['month', '30d'],
  ['year', '365d']
]

/** Notes another status of refusals than 429, and a text of them. */
function noteRefusal(config: Foreign, note: (text: string) => void): void {
  const code = config.number('error_code') ?? 429
  if (code !== 429) note(`${config.where}.error_code: refusals have status 429 here, not ${code}`)
  if (config.text('error_message') !== undefined && config.text('error_message') !== 'API rate limit exceeded')
    note(`${config.where}.error_message: not converted; write edge.errorPages`)
}

/** Returns the property by which a plugin counts, and whether it counts in Redis. */
function sourceOf(config: Foreign, draft: Draft, authenticates: boolean) {
  const by = config.text('limit_by') ?? 'consumer'
  const header = config.text('header_name')
  const kinds: Readonly<Record<string, string>> = {
    ip: 'ip',
    consumer: authenticates ? 'consumer' : 'ip',
    credential: authenticates ? 'consumer' : 'ip',
    header: `header:${header}`,
    service: 'route',
    path: 'route'
  }
  const isRedis = config.text('policy') === 'redis'
  if (config.text('policy') === 'cluster')
    draft.note(null, `${config.where}.policy cluster: each node counts alone; write store: redis`)
  if (isRedis) useRedis(config, draft)
  else config.skip(...config.keys.filter((key) => key.startsWith('redis')))
  return { by: member(kinds, by) ?? by, isRedis }
}

export const rateLimit: Convert = (config, { target, about, name, context: { draft }, authenticates, isShared }) => {
  const { by, isRedis } = sourceOf(config, draft, authenticates)
  const isOpen = config.flag('fault_tolerant') ?? true
  const limits = periods.flatMap(([key, window]) => {
    const max = config.number(key)
    return max === undefined ? [] : [{ max, window }]
  })
  const more: Settings = {
    ...(by !== 'ip' && { by }),
    ...(isShared && { name: `${name}-limit` }),
    ...(isRedis && { store: 'redis', onFailure: isOpen ? 'share' : 'closed' }),
    ...(config.flag('hide_client_headers') === true && { headers: 'none' })
  }
  // All limits of a place share a name only if they are one.
  const all = limits.map((limit, index) => ({
    ...limit,
    ...more,
    ...(isShared && limits.length > 1 && { name: `${String(more.name)}-${index + 1}` })
  }))
  noteRefusal(config, (text) => draft.note(about, text))
  config.skip('sync_rate', 'path')
  if (limits.some(({ window }) => window === '365d')) draft.note(about, 'a limit per year: 365 days')
  if (all.length > 0) target.rateLimit = oneOrAll(all)
  else draft.undecided(about, `${config.where}: no limit is set`)
}

export const advancedLimit: Convert = (
  config,
  { target, about, name, context: { draft }, authenticates, isShared }
) => {
  const windows = config.texts('window_size')
  const maxima = config.texts('limit').map(Number)
  const identifier = config.text('identifier') ?? 'consumer'
  const header = config.text('header_name')
  const by =
    { ip: 'ip', header: `header:${header}`, service: 'route', path: 'route' }[identifier] ??
    (authenticates ? 'consumer' : 'ip')
  const isRedis = config.text('strategy') === 'redis'
  if (isRedis) useRedis(config, draft)
  const isFixed = config.text('window_type') === 'fixed'
  const limits = maxima.map((max, index) => ({
    max,
    window: `${windows[index] ?? windows[0] ?? 60}s`,
    ...(!isFixed && { algorithm: 'sliding-window' }),
    ...(by !== 'ip' && { by }),
    ...(isShared && { name: `${name}-limit${maxima.length > 1 ? `-${index + 1}` : ''}` }),
    ...(isRedis && { store: 'redis' })
  }))
  if (config.text('identifier') === 'consumer-group') draft.note(about, `${config.where}.identifier: by consumer`)
  noteRefusal(config, (text) => draft.note(about, text))
  config.skip(...config.keys)
  if (limits.length > 0 && maxima.every((max) => Number.isInteger(max) && max > 0)) target.rateLimit = oneOrAll(limits)
  else draft.undecided(about, `${config.where}: no limit is set`)
}

/** Limits of what the service reports, each in a header of its own. */
export const responseLimit: Convert = (
  config,
  { target, about, name, context: { draft }, authenticates, isShared }
) => {
  const header = (config.text('header_name') ?? 'x-kong-limit').toLowerCase()
  const { by, isRedis } = sourceOf(config, draft, authenticates)
  const limits = config.named('limits').flatMap(([kind, fields]) =>
    periods.flatMap(([key, window]) => {
      const max = fields.number(key)
      if (max === undefined) return []
      const id = `${name}-${kind}-${key}`.toLowerCase().replace(/[^a-z0-9]+/g, '-')
      return [
        {
          max,
          window,
          costHeader: `${header}-${kind.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`,
          ...(by !== 'ip' && { by }),
          ...(isShared && { name: id }),
          ...(isRedis && { store: 'redis', onFailure: (config.flag('fault_tolerant') ?? true) ? 'share' : 'closed' })
        }
      ]
    })
  )
  config.skip('fault_tolerant', 'block_on_first_violation', 'hide_client_headers')
  if (limits.length > 0) target.rateLimit = [target.rateLimit ?? [], limits].flat()
  const [first] = limits
  const example = first === undefined ? 'write edge.rateLimit.costHeader' : `here "${first.costHeader}: 2"`
  draft.undecided(
    about,
    `response-ratelimiting: services send "${header}: NAME=2", ${example}, the number alone; a request without it counts 1`
  )
}
