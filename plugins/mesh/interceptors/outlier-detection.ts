import type { Layer } from '../layer.ts'

/** Takes out instances that answer worse than the others. */
export const outlierDetection: Layer = () => null
