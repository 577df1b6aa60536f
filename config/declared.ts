/** Collects the facts that concerns declare in their keys, for policies in which they are on. */
import type { Key, Keys } from './concern.ts'
import type { Config, Declared } from './schema.ts'

/** The sections of the configuration that have policies. */
type Sections = Pick<Config, 'edge' | 'mesh' | 'services' | 'routes'>

const lowerCase = (names: readonly string[]) => names.map((name) => name.toLowerCase())

/** Returns the keys that are on in a policy, with their options. */
function keysIn(keys: readonly Key[], policy: object): (readonly [key: Key, options: unknown])[] {
  return keys.flatMap((key) => {
    const options: unknown = Reflect.get(policy, key.name)
    return options ? [[key, options] as const] : []
  })
}

/** Returns the facts that edge concerns declare for a route with this policy. */
export function declaredBy(keys: readonly Key[], policy: object): Declared {
  // In shadow mode, a concern that responds to preflights leaves them, and the headers of CORS, to the service.
  const found = keysIn(keys, policy).filter(
    ([key, options]) => !(key.answersPreflights && (options as { mode?: unknown }).mode === 'shadow')
  )
  const on = found.map(([key]) => key)
  return {
    answersPreflights: on.some((key) => key.answersPreflights),
    ownsHeaders: lowerCase(on.flatMap((key) => key.ownsHeaders ?? [])),
    ownPaths: found.flatMap(([key, options]) => key.ownPaths?.(options) ?? [])
  }
}

/** Returns the names of other services to which a mesh policy sends calls. */
export function otherServices(keys: readonly Key[], policy: object): string[] {
  return keysIn(keys, policy).flatMap(([key, options]) => key.otherServices?.(options) ?? [])
}

/** Returns the request headers that instruct concerns. `believed` lists those that at least one configured policy obeys. */
export function instructingHeaders(keys: Keys, { edge, mesh, services, routes }: Sections): Config['instructions'] {
  const policies = {
    edge: [edge, ...routes.map((route) => route.edge)],
    mesh: [
      mesh,
      ...Object.values(services).map((service) => service.mesh),
      ...routes.flatMap(({ targets }) => targets.map((target) => target.mesh))
    ]
  }
  const found = (['edge', 'mesh'] as const).flatMap((half) =>
    keys[half].flatMap(({ name, instructions }) => {
      if (instructions === undefined) return []
      const options = policies[half].map((policy): unknown => Reflect.get(policy, name))
      const isBelieved = options.some((each) => Boolean(each) && instructions.areObeyed(each))
      return [{ headers: lowerCase(instructions.headers), isBelieved }]
    })
  )
  return {
    headers: found.flatMap(({ headers }) => headers),
    believed: found.flatMap(({ headers, isBelieved }) => (isBelieved ? headers : []))
  }
}

/** Returns the request headers to which edge concerns give a new value for each request. */
export function perRequestHeaders(keys: readonly Key[], policy: object): string[] {
  return keysIn(keys, policy).flatMap(([key, options]) => key.perRequestHeaders?.(options) ?? [])
}
