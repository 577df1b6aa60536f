import type { Layer } from '../layer.ts'

/** Injects delays, aborts and slowness. */
export const fault: Layer = () => null
