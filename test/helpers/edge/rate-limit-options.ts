import type { LimitOptions } from '../../../plugins/edge/concerns/rate-limit/options.ts'

export const limitOptions = (more: Partial<LimitOptions> = {}): LimitOptions => ({
  max: 2,
  window: 60_000,
  by: 'ip',
  store: 'memory',
  ...more
})
