import type { Layer } from '../layer.ts'

/** A copy of the call goes to another service; nobody waits for it. */
export const mirror: Layer = () => null
