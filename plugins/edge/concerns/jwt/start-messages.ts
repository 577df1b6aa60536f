/** Lines that are printed at start: commands to try, and warnings. */
import { publishedSecret } from '../../../../config/published-secret.ts'
import type { Config } from '../../../../config/schema.ts'
import type { Started } from '../../concern-commands.ts'
import { hasSecret, sourcesOf } from './sources.ts'

export function tries({ config, command, urlOf }: Started): string[] {
  const route = config.routes.find((each) => each.edge.jwt && hasSecret(each.edge.jwt) && urlOf(each))
  if (route === undefined) return []
  const url = urlOf(route)
  return [
    `curl -i ${url}      # 401; with a token:`,
    `curl -i ${url} -H "Authorization: Bearer $(${command} token ${route.name})"`
  ]
}

/** Returns a warning for routes whose secret is the public one of the examples. */
export function warnings({ routes }: Config): string[] {
  const names = routes
    .filter(({ edge }) => edge.jwt && sourcesOf(edge.jwt).some(({ secret }) => secret === publishedSecret))
    .map(({ name }) => name)
  if (names.length === 0) return []
  return [
    `WARNING: the JWT secret of ${names.join(', ')} is PUBLIC: it is the one of the examples, so anybody can sign tokens with it.`,
    '         Set JWT_SECRET to 32 or more random characters, such as those of: openssl rand -hex 32'
  ]
}
