/** CORS, authentication and rate limits together: the order in which they look at a request. */
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import cors from '../../../plugins/edge/concerns/cors/index.ts'
import jwt from '../../../plugins/edge/concerns/jwt/index.ts'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import { corsOptions } from '../../helpers/edge/cors-options.ts'
import { edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { jwtOptions } from '../../helpers/edge/jwt-options.ts'
import { limitOptions } from '../../helpers/edge/rate-limit-options.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'

const edgeApp = edgeAppWith(cors, rateLimit, jwt)

const status = async (app: FastifyInstance, headers: Record<string, string> = {}) =>
  (await app.inject({ url: '/orders', headers })).statusCode
const statuses = async (app: FastifyInstance, times: number, headers = {}) => {
  const all: number[] = []
  for (let i = 0; i < times; i++) all.push(await status(app, headers))
  return all
}
const bearer = (sub: string | undefined, key = secret) => ({ authorization: `Bearer ${token(claims({ sub }), key)}` })

t.test('a preflight ends before authentication and rate limit, whose refusals a browser can read', async (t) => {
  const origin = 'https://app.example.com'
  const edge = { cors: corsOptions(), jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 1 }) }
  const app = await edgeApp([{ name: 'orders', preflightOnly: true, edge }])
  t.teardown(() => app.close())
  for (let i = 0; i < 3; i++) {
    const response = await app.inject({
      method: 'OPTIONS',
      url: '/orders',
      headers: { origin, 'access-control-request-method': 'POST' }
    })
    t.equal(response.statusCode, 204)
    t.equal(response.headers['ratelimit-limit'], undefined)
  }
  const statuses: number[] = []
  for (let i = 0; i < 2; i++) {
    const response = await app.inject({ url: '/orders', headers: { origin } })
    statuses.push(response.statusCode)
    t.equal(response.headers['access-control-allow-origin'], origin)
    t.equal(response.headers.vary, 'Origin')
  }
  t.same(statuses, [401, 429])
  const stranger = await app.inject({ url: '/orders', headers: { origin: 'https://evil.example.com' } })
  t.equal(stranger.statusCode, 429)
  t.equal(stranger.headers['access-control-allow-origin'], undefined)
})

t.test('by consumer: counted after authentication, at any address', async (t) => {
  const edge = { jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 2, by: 'consumer' }) }
  const app = await edgeApp([{ name: 'orders', edge }], { server: { trustProxy: true } })
  t.teardown(() => app.close())
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.1' }), 200)
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.2' }), 200)
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.3' }), 429)
  t.equal(await status(app, { ...bearer('bob'), 'x-forwarded-for': '192.0.2.1' }), 200)
  t.same(await statuses(app, 4), [401, 401, 401, 401], 'unauthenticated requests count for no consumer')
  t.equal(await status(app, bearer('ann', 'a forged secret, long enough for this')), 401)
  t.same(await statuses(app, 3, bearer(undefined)), [200, 200, 429], 'without a name, by address')
})

t.test('by address it runs before authentication', async (t) => {
  const edge = { jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 2 }) }
  const app = await edgeApp([{ name: 'orders', edge }])
  t.teardown(() => app.close())
  t.same(await statuses(app, 3), [401, 401, 429])
})
