/**
 * Returns the value of a claim by its name, or by a path through nested claims (`realm_access.roles`, as in Keycloak's
 * tokens); undefined if there is none. At each level, a claim whose name itself contains dots, such as a URL, wins.
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
