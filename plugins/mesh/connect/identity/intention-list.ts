/** Consul's response to `/connect/intentions/match`, and the choice of the governing intention by precedence. */

/** `unknown`: the intention depends on more than the source, such as the path or method of the request. */
export type Verdict = 'allowed' | 'denied' | 'unknown'

/** A service with its namespace; either may be `*`. */
interface End {
  readonly name: string
  readonly namespace: string
}

export interface Intention {
  readonly source: End
  readonly destination: End
  readonly precedence: number
  readonly verdict: Verdict
}

/** Returns the intentions that match a service. Throws if the response is malformed. */
export function intentionsIn(body: unknown, service: string): Intention[] {
  const listed = (body as Record<string, unknown> | null)?.[service]
  if (listed === undefined || (listed !== null && !Array.isArray(listed))) {
    throw new TypeError("Consul's response is not a list of intentions")
  }
  return (listed ?? []).flatMap((entry: Record<string, unknown>) => {
    const source = endOf(entry.SourceName, entry.SourceNS)
    const destination = endOf(entry.DestinationName, entry.DestinationNS)
    // Skip intentions for services of a peered cluster, which may have the same names.
    if (entry.SourcePeer || source === null || destination === null) return []
    const { Precedence, Action, Permissions } = entry
    const action = Action === 'allow' ? 'allowed' : Action === 'deny' ? 'denied' : 'unknown'
    return {
      source,
      destination,
      precedence: Number(Precedence) || 0,
      // Consul's `check` would report such an intention as denied.
      verdict: Array.isArray(Permissions) && Permissions.length > 0 ? 'unknown' : action
    } as const
  })
}

function endOf(name: unknown, namespace: unknown): End | null {
  if (typeof name !== 'string') return null
  return { name, namespace: typeof namespace === 'string' && namespace !== '' ? namespace : 'default' }
}

/** Returns the governing intention for a source or destination, or null. At equal precedence the first in Consul's list wins. */
export function governing(
  listed: readonly Intention[],
  end: 'source' | 'destination',
  { name, namespace }: End
): Intention | null {
  const about = listed.filter(({ [end]: each }) => fits(each.name, name) && fits(each.namespace, namespace))
  return about.reduce<Intention | null>(
    (best, each) => (best && best.precedence >= each.precedence ? best : each),
    null
  )
}

const fits = (pattern: string, name: string) => pattern === name || pattern === '*'
