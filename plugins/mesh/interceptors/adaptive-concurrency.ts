import type { Layer } from '../layer.ts'

/** Bounds what is in flight by what the latency allows. */
export const adaptiveConcurrency: Layer = () => null
