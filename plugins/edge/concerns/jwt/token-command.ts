/** The command `token`: mints a token for a route with a `secret`, for development. */
import { didYouMean } from '../../../../config/nearest.ts'
import type { Config } from '../../../../config/schema.ts'
import { parseDuration } from '../../../../config/units.ts'
import type { EdgeCommand } from '../../concern-commands.ts'
import { mint } from './mint.ts'
import { hasSecret } from './sources.ts'

export const tokenCommand: EdgeCommand = {
  name: 'token',
  usage: `  node app.ts token ROUTE         mint a token for a route whose jwt has a secret (development only)
                                  --subject NAME  --ttl 1h  --claims '{"scope":"read"}'
`,
  options: {
    subject: { type: 'string', default: 'developer' },
    ttl: { type: 'string', default: '1h' },
    claims: { type: 'string', default: '{}' }
  },
  run: async (load, name, values) =>
    tokenFor(await load(), name, values as { subject: string; ttl: string; claims: string })
}

function tokenFor(
  config: Config,
  name: string | undefined,
  { subject, ttl, claims }: { subject: string; ttl: string; claims: string }
): string {
  const candidates = config.routes.filter(({ edge }) => edge.jwt && hasSecret(edge.jwt))
  const route = candidates.find((candidate) => candidate.name === name)
  if (!route?.edge.jwt) throw new Error(refusal(config.routes, candidates, name))
  const lifeMs = parseDuration(ttl)
  if (lifeMs === null) throw new Error(`--ttl ${ttl}: expected a duration such as 15m or 1h`)
  const expiresIn = Math.max(1, Math.round(lifeMs / 1000))
  const request = { claims: { ...claimsOf(claims), sub: subject }, issuedAt: Date.now(), expiresIn }
  return mint(route.edge.jwt, request)
}

/** Returns why no token can be minted for a route, and what to do. */
function refusal(routes: Config['routes'], candidates: Config['routes'], name: string | undefined): string {
  if (!routes.some(({ edge }) => edge.jwt)) return 'no route has edge.jwt: requests need no token, until you set it'
  if (candidates.length === 0) {
    return 'no route has edge.jwt with a "secret": for "jwks" and "publicKey", get the token from its issuer'
  }
  const names = candidates.map((candidate) => candidate.name).join(', ')
  if (!name) return `token takes a route whose jwt has a secret; those that have: ${names}`
  const all = routes.map((route) => route.name)
  if (!all.includes(name)) return `no route is named "${name}"${didYouMean(name, all)}`
  return `route "${name}" has no jwt secret to sign with; those that have: ${names}`
}

function claimsOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const claims: unknown = JSON.parse(text)
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims)) return { ...claims }
  } catch {}
  throw new Error(`--claims ${text}: expected a JSON object such as '{"scope":"read"}'`)
}
