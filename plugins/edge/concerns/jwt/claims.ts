/**
 * Returns the value of a claim by its name, or by its path through nested claims (`realm_access.roles`, as Keycloak has
 * them); undefined if there is none. A name that itself contains dots, such as a URL, comes first, at each level.
 */
export function claimAt(claims: unknown, path: string): unknown {
  if (typeof claims !== 'object' || claims === null) return undefined
  if (Object.hasOwn(claims, path)) return Reflect.get(claims, path)
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const name = path.slice(0, dot)
    const inner = Object.hasOwn(claims, name) ? claimAt(Reflect.get(claims, name), path.slice(dot + 1)) : undefined
    if (inner !== undefined) return inner
  }
  return undefined
}
