import type { AddressInfo } from 'node:net'
import { conditionTexts } from '../../config/match-conditions.ts'
import { pathsOf } from '../../config/path-pattern.ts'
import type { Config, RouteConfig } from '../../config/schema.ts'
import { version } from './about.ts'

/** `1 route`, `2 routes`. */
export function count(many: number, what: string): string {
  return `${many} ${what}${many === 1 ? '' : 's'}`
}

/** The parts of a concern that the banner uses. */
interface Shown {
  readonly keys: readonly { readonly name: string; readonly provides?: readonly string[] }[]
  readonly tries?: ((about: Started) => readonly string[]) | undefined
  readonly warnings?: ((config: Config) => readonly string[]) | undefined
}

/** A listener, as the banner shows it. */
interface Edge {
  readonly name: string
  readonly url: string
  /** True if it has a URL under which routes are served. */
  readonly canBeTried: boolean
  /** Arguments of curl instead of the URL, if curl needs more than a URL. */
  readonly curl?: string | null
}

interface Started {
  readonly config: Config
  readonly command: string
  readonly urlOf: (route: RouteConfig) => string | null
  readonly isOpen: (route: RouteConfig) => boolean
}

/** Returns the lines that are printed after the start: addresses, and commands to try. */
export function banner(
  config: Config,
  edges: readonly Edge[],
  admin: string | null,
  command: string,
  concerns: readonly Shown[]
): string {
  const identifying = concerns.flatMap(({ keys }) => keys.filter(({ provides }) => provides?.includes('consumer')))
  const isOpen = (route: RouteConfig) => !identifying.some(({ name }) => Reflect.get(route.edge, name))
  const tried = edges.find(({ canBeTried }) => canBeTried)
  const edge = tried?.curl ?? tried?.url
  const urlOf = (route: RouteConfig) => (edge !== undefined && takesGet(route) ? `${edge}${example(route)}` : null)
  const about: Started = { config, command, urlOf, isOpen }
  const lines = [
    `jingwei ${version} is up${config.isSidecar ? ' as a sidecar' : ''}: ${count(config.routes.length, 'route')} to ${count(Object.keys(config.services).length, 'service')}`,
    `  config   ${config.file} (SHA-256 ${config.hash}…)`,
    ...edges.map(({ name, url }) =>
      config.isSidecar ? `  sidecar  ${url} (${name})` : `  edge     ${url}${edges.length > 1 ? ` (${name})` : ''}`
    ),
    ...(admin === null
      ? []
      : [`  metrics  ${admin}/metrics`, `  health   ${admin}/health/ready`, `  admin    ${admin}/admin/routes`])
  ]
  const open = config.routes.find((route) => isOpen(route) && takesGet(route))
  const tries = [
    ...(open === undefined || edge === undefined ? [] : [`curl -i ${urlOf(open)}`]),
    ...concerns.flatMap((concern) => concern.tries?.(about) ?? [])
  ]
  const warnings = concerns.flatMap((concern) => concern.warnings?.(config) ?? [])
  return [
    ...lines,
    ...(tries.length > 0 ? ['try:', ...tries.map((text) => `  ${text}`)] : []),
    ...(warnings.length > 0 ? ['', ...warnings] : []),
    ''
  ].join('\n')
}

function takesGet({ match }: RouteConfig): boolean {
  return (
    (match.methods === undefined || match.methods.includes('GET')) && !match.hosts && conditionTexts(match).length === 0
  )
}

function example({ match }: RouteConfig): string {
  const [path = '/'] = pathsOf(match.path)
  return typeof path === 'string' ? path.replace(/:(\w+)/g, '1').replace('*', '') : path.exact
}

/** Returns the URL of a listening server on this machine; for a Unix socket, its path. */
export function urlOf(scheme: string, at: AddressInfo | string): string {
  if (typeof at === 'string') return `${scheme}+unix:${at}`
  const { address, port } = at
  const host = address === '0.0.0.0' || address === '::' ? '127.0.0.1' : address
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`
}
