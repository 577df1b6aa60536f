import type { Layer } from '../layer.ts'

/** Takes the hash by which the balancer chooses. */
export const hashKey: Layer = () => null
