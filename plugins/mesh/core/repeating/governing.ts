import type { MeshPolicy } from '../../../../config/schema.ts'
import type { LayerContext } from '../layer.ts'
import type { Service } from '../service.ts'
import type { Repeating } from './repeats.ts'

/** Returns what the concern says that rules for all that send requests again under a policy; null if there is none. */
export function governing(policy: MeshPolicy, service: Service, context: LayerContext): Repeating | null {
  for (const repeats of context.repeats()) {
    const repeating = repeats(policy, service, context)
    if (repeating?.budget !== undefined) return repeating
  }
  return null
}
