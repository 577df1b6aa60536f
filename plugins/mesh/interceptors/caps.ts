import type { Layer } from '../layer.ts'

/** Bounds what is in flight and what waits. */
export const caps: Layer = () => null
