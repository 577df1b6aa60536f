/** Discovery by hand: the test publishes the instances. */

import type { InstanceSpec } from '../../../plugins/mesh/core/types.ts'
import type { Discovery } from '../../../plugins/mesh/discovery/index.ts'

export function byHand() {
  const publishers = new Map<string, (specs: readonly InstanceSpec[]) => void>()
  const closed: string[] = []
  const discovery: Discovery = {
    source: ({ name }) => ({
      start: (publish) => void publishers.set(name, publish),
      status: () => ({ kind: 'by hand', confirmedAt: 0, error: null }),
      close: async () => void closed.push(name)
    }),
    close: async () => void closed.push('discovery')
  }
  const publish = (name: string, origins: readonly string[]) =>
    publishers.get(name)!(origins.map((origin) => ({ id: origin, origin, weight: 1, tags: [], meta: {} })))
  return { discovery, publish, closed }
}
