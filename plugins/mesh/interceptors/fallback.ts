import type { Layer } from '../layer.ts'

/** What is answered when the service does not. */
export const fallback: Layer = () => null
