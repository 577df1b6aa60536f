import { publishedSecret } from '../../config/published-secret.ts'
import type { Config, RouteConfig } from '../../config/schema.ts'

/** `1 route`, `2 routes`. */
export function count(many: number, what: string): string {
  return `${many} ${what}${many === 1 ? '' : 's'}`
}

/** What a person who started the gateway wants to know: where it listens, and what to try. */
export function banner(config: Config, edge: string, admin: string | null, command: string): string {
  const open = config.routes.find((route) => !route.edge.jwt && takesGet(route))
  const guarded = config.routes.find(
    (route) => route.edge.jwt && route.edge.jwt.secret !== undefined && takesGet(route)
  )
  const limited = config.routes.find((route) => route.edge.rateLimit && !route.edge.jwt && takesGet(route))
  const lines = [
    `jingwei is up: ${count(config.routes.length, 'route')} to ${count(Object.keys(config.services).length, 'service')}`,
    `  edge     ${edge}`,
    ...(admin === null
      ? []
      : [`  metrics  ${admin}/metrics`, `  health   ${admin}/health/ready`, `  admin    ${admin}/admin/routes`])
  ]
  const tries: string[] = []
  if (open) tries.push(`  curl -i ${edge}${example(open)}`)
  if (guarded) {
    tries.push(
      `  curl -i ${edge}${example(guarded)}      # 401; with a token:`,
      `  curl -i ${edge}${example(guarded)} -H "Authorization: Bearer $(${command} token ${guarded.name})"`
    )
  }
  if (limited?.edge.rateLimit) {
    const { max, window } = limited.edge.rateLimit
    const times = max + 1
    tries.push(
      `  for i in $(seq ${times}); do curl -s -o /dev/null -w '%{http_code} ' ${edge}${example(limited)}; done` +
        `      # ${max} in ${window / 1000} s, then 429`
    )
  }
  return [...lines, ...(tries.length > 0 ? ['try:', ...tries] : []), ...publicSecret(config), ''].join('\n')
}

/** A warning that nobody overlooks, where tokens are signed with the secret of the examples. */
function publicSecret({ routes }: Config): string[] {
  const names = routes.filter(({ edge }) => edge.jwt && edge.jwt.secret === publishedSecret).map(({ name }) => name)
  if (names.length === 0) return []
  return [
    '',
    `WARNING: the JWT secret of ${names.join(', ')} is PUBLIC: it is that of the examples, and anybody can sign tokens with it.`,
    '         Set JWT_SECRET to 32 or more random characters, such as those of: openssl rand -hex 32'
  ]
}

function takesGet({ match }: RouteConfig): boolean {
  return (match.methods === undefined || match.methods.includes('GET')) && !match.hosts && !match.headers
}

function example({ match: { path } }: RouteConfig): string {
  return typeof path === 'string' ? path.replace(/:(\w+)/g, '1').replace('*', '') : path.exact
}
