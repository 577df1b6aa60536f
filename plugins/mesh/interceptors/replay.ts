import type { Layer } from '../layer.ts'

/** Keeps a request body that may be sent again. */
export const replay: Layer = () => null
