/** Lines for a person who has started the gateway. */
import { publishedSecret } from '../../../../config/published-secret.ts'
import type { Config } from '../../../../config/schema.ts'
import type { Started } from '../../concern.ts'

export function tries({ config, command, urlOf }: Started): string[] {
  const route = config.routes.find((each) => each.edge.jwt && each.edge.jwt.secret !== undefined && urlOf(each))
  if (route === undefined) return []
  const url = urlOf(route)
  return [
    `curl -i ${url}      # 401; with a token:`,
    `curl -i ${url} -H "Authorization: Bearer $(${command} token ${route.name})"`
  ]
}

/** A warning that nobody overlooks, where tokens are signed with the secret of the examples. */
export function warnings({ routes }: Config): string[] {
  const names = routes.filter(({ edge }) => edge.jwt && edge.jwt.secret === publishedSecret).map(({ name }) => name)
  if (names.length === 0) return []
  return [
    `WARNING: the JWT secret of ${names.join(', ')} is PUBLIC: it is that of the examples, and anybody can sign tokens with it.`,
    '         Set JWT_SECRET to 32 or more random characters, such as those of: openssl rand -hex 32'
  ]
}
