import type { Layer } from '../layer.ts'

/** Whether the gateway may call the service at all. */
export const intentions: Layer = () => null
