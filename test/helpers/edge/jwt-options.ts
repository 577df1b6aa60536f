import type { JwtOptions } from '../../../plugins/edge/concerns/jwt/options.ts'

export const jwtOptions = (more: Partial<JwtOptions>): JwtOptions => ({
  jwksMaxAge: 600_000,
  jwksCooldown: 30_000,
  clockSkew: 5000,
  rememberTokens: 20_000,
  maxTokenSize: 8192,
  from: { header: 'authorization' },
  optional: false,
  requireExp: true,
  boundTokens: 'check',
  consumer: 'sub',
  realm: 'jingwei',
  keepAuthorization: false,
  mode: 'enforce',
  ...more
})
