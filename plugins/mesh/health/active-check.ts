import type { Layer } from '../layer.ts'

/** Asks the instances themselves how they are. */
export const activeCheck: Layer = () => null
