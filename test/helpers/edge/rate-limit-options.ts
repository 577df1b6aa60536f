import type { RateLimitOptions } from '../../../plugins/edge/concerns/rate-limit/options.ts'

export const limitOptions = (more: Partial<RateLimitOptions> = {}): RateLimitOptions => ({
  max: 2,
  window: 60_000,
  by: 'ip',
  store: 'memory',
  ...more
})
