import type { CorsOptions } from '../../../plugins/edge/concerns/cors/index.ts'

export const corsOptions = (more: Partial<CorsOptions> = {}): CorsOptions => ({
  origin: ['https://app.example.com'],
  credentials: false,
  ...more
})
