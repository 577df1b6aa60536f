import type { CorsOptions } from '../../../plugins/edge/concerns/cors/options.ts'

export const corsOptions = (more: Partial<CorsOptions> = {}): CorsOptions => ({
  origin: ['https://app.example.com'],
  credentials: false,
  privateNetwork: false,
  ...more
})
