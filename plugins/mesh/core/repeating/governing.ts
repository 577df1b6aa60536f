import type { MeshPolicy } from '../../../../config/schema.ts'
import type { LayerContext } from '../layer.ts'
import type { Service } from '../service.ts'
import type { Repeating } from './repeats.ts'

/**
 * Returns the declaration of the concern that sets the retry budget, which governs all that repeat requests; null if
 * none.
 */
export function governing(policy: MeshPolicy, service: Service, context: LayerContext): Repeating | null {
  for (const repeats of context.repeats()) {
    const repeating = repeats(policy, service, context)
    if (repeating?.budget !== undefined) return repeating
  }
  return null
}
