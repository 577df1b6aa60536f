/** The Redis in which other gateways count. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'

interface Redis {
  /** Host and port. */
  readonly address: string
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly database?: string | undefined
  readonly isSecure?: boolean
}

/** Returns the URL of a Redis. Variables stay as they are. */
export function redisUrl({ address, username = '', password = '', database = '0', isSecure = false }: Redis): string {
  const part = (text: string) => (text.includes('$') ? text : encodeURIComponent(text))
  const login = username === '' && password === '' ? '' : `${part(username)}:${part(password)}@`
  return `redis${isSecure ? 's' : ''}://${login}${address}${database === '0' || database === '' ? '' : `/${database}`}`
}

const cluster = ['cluster_nodes', 'cluster_addresses', 'sentinel_nodes', 'sentinel_addresses', 'sentinel_master']

/** Sets the URL of Redis for Kong and APISIX: of the mapping `redis`, or of keys such as `redis_host`. */
export function useRedis(config: Foreign, draft: Draft): void {
  const fields = config.map('redis')
  const text = (key: string): string | undefined => fields?.text(key) ?? config.text(`redis_${key}`)
  const host = text('host') ?? 'redis'
  const url = redisUrl({
    address: `${host}:${text('port') ?? '6379'}`,
    username: text('username'),
    password: text('password'),
    database: text('database'),
    isSecure: text('ssl') === 'true'
  })
  if (cluster.some((key) => fields?.has(key) || config.has(`redis_${key}`)))
    draft.note(null, `${config.where}: a Redis cluster: write redis.url with one Redis`)
  fields?.skip(...fields.keys)
  config.skip(...config.keys.filter((key) => key.startsWith('redis_')))
  if (draft.redis !== null && draft.redis !== url)
    draft.note(null, `${config.where}: Redis ${host}: not converted; all limits and caches use one Redis`)
  draft.redis ??= url
}
