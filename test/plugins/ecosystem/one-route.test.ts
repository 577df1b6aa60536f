// slow: installs packages
// Published plugins on one route alone: on the control, in the context of its http-proxy.
import t from 'tap'
import { basic, works } from './support.ts'

works(t, '@fastify/bearer-auth', {
  plugins: `
    - package: '@fastify/bearer-auth'
      scope: routes
      options: { keys: [one-key] }`,
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: 'Bearer one-key' } })
    await ask('/open/page')
    await ask('/nothing')
  },
  expected: {
    requests: [{ url: '/api/page' }, { url: '/open/page' }],
    responses: [{ status: 401 }, { status: 200 }, { status: 200 }, { status: 404 }]
  }
})

works(t, '@fastify/basic-auth', {
  plugins: `
    - path: ./plugin.js
      scope: routes`,
  files: {
    'plugin.js': `
      import basicAuth from '@fastify/basic-auth'
      export default async (fastify) => {
        const validate = async (name, password) => {
          if (name !== 'amy' || password !== 'pass') throw new Error('Unknown user or password')
        }
        await fastify.register(basicAuth, { validate, authenticate: true })
        fastify.addHook('onRequest', fastify.basicAuth)
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: basic('amy', 'pass') } })
    await ask('/open/page')
  },
  expected: { responses: [{ status: 401 }, { status: 200 }, { status: 200 }] }
})

works(
  t,
  '@fastify/helmet',
  {
    plugins: `
      - package: '@fastify/helmet'
        scope: routes`,
    client: async ({ ask }) => {
      await ask('/api/page')
      await ask('/open/page')
      await ask('/nothing')
    },
    expected: {
      responses: [
        { status: 200, headers: { 'x-frame-options': 'SAMEORIGIN' } },
        { status: 200, headers: { 'x-frame-options': undefined } },
        { status: 404, headers: { 'x-frame-options': undefined } }
      ]
    }
  },
  ['HTTP/1.1', 'HTTP/2']
)

works(t, '@fastify/rate-limit', {
  plugins: `
    - package: '@fastify/rate-limit'
      scope: routes
      options: { max: 1, timeWindow: 60000 }`,
  client: async ({ ask }) => {
    for (const path of ['/api/page', '/api/page', '/open/page', '/open/page']) await ask(path)
  },
  // Seconds that are left.
  masked: /(?<="(x-ratelimit-reset|retry-after)":")\d+/g,
  expected: { responses: [{ status: 200 }, { status: 429 }, { status: 200 }, { status: 200 }] }
})

works(t, '@fastify/jwt', {
  plugins: `
    - path: ./plugin.js
      scope: routes`,
  files: {
    'plugin.js': `
      import jwt from '@fastify/jwt'
      export default async (fastify) => {
        await fastify.register(jwt, { secret: 'a secret that is long enough for HS256' })
        fastify.get('/token', async () => ({ token: fastify.jwt.sign({ sub: 'amy', iat: 1 }) }))
        fastify.addHook('onRequest', async (request, reply) => {
          if (request.url === '/token') return
          await request.jwtVerify()
          reply.header('x-user', request.user.sub)
        })
      }`
  },
  client: async ({ ask }) => {
    const { token } = JSON.parse((await ask('/token')).body) as { token: string }
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: `Bearer ${token}` } })
    await ask('/open/page')
  },
  expected: {
    responses: [{ status: 200 }, { status: 401 }, { status: 200, headers: { 'x-user': 'amy' } }, { status: 200 }]
  }
})
