import type { Layer } from '../layer.ts'

/** Lets no attempt through while the service fails. */
export const circuitBreaker: Layer = () => null
