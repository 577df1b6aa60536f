// slow: installs packages
// Published plugins that say who may come in.
import { createSign, generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { startService } from '../../helpers/gateway.ts'
import { basic, works } from './support.ts'

works(t, '@fastify/basic-auth', {
  plugins: `
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import basicAuth from '@fastify/basic-auth'
      export default async (fastify) => {
        const validate = async (name, password) => {
          if (name !== 'amy' || password !== 'pass') throw new Error('Unknown user or password')
        }
        await fastify.register(basicAuth, { validate, authenticate: { realm: 'api' } })
        fastify.addHook('onRequest', fastify.basicAuth)
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: basic('amy', 'wrong') } })
    await ask('/api/page', { headers: { authorization: basic('amy', 'pass') } })
  },
  expected: {
    requests: [{ headers: { authorization: basic('amy', 'pass') } }],
    responses: [{ status: 401, headers: { 'www-authenticate': /realm="api"/ } }, { status: 401 }, { status: 200 }]
  }
})

works(t, '@fastify/bearer-auth', {
  plugins: `
    - package: '@fastify/bearer-auth'
      options: { keys: [one-key, another-key] }`,
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: 'Bearer wrong' } })
    await ask('/api/page', { headers: { authorization: 'Bearer another-key' } })
  },
  expected: { requests: [{}], responses: [{ status: 401 }, { status: 401 }, { status: 200 }] }
})

works(t, '@fastify/auth with alternatives', {
  plugins: `
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import auth from '@fastify/auth'
      import bearerAuth from '@fastify/bearer-auth'
      import basicAuth from '@fastify/basic-auth'
      export default async (fastify) => {
        const validate = async (name, password) => {
          if (name + password !== 'amypass') throw new Error('no')
        }
        await fastify.register(auth)
        await fastify.register(basicAuth, { validate })
        await fastify.register(bearerAuth, { keys: ['one-key'], addHook: false, verifyErrorLogLevel: 'debug' })
        fastify.addHook('preHandler', fastify.auth([fastify.basicAuth, fastify.verifyBearerAuth], { relation: 'or' }))
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page', { headers: { authorization: basic('amy', 'wrong') } })
    await ask('/api/page', { headers: { authorization: basic('amy', 'pass') } })
    await ask('/api/page', { headers: { authorization: 'Bearer one-key' } })
  },
  expected: { requests: [{}, {}], responses: [{ status: 401 }, { status: 200 }, { status: 200 }] }
})

works(t, '@fastify/jwt', {
  plugins: `
    - package: '@fastify/jwt'
      options: { secret: a secret that is long enough for HS256 }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
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
    await ask('/api/page', { headers: { authorization: `Bearer ${token}x` } })
    await ask('/api/page', { headers: { authorization: `Bearer ${token}` } })
  },
  expected: {
    requests: [{}],
    responses: [{ status: 200 }, { status: 401 }, { status: 401 }, { status: 200, headers: { 'x-user': 'amy' } }]
  }
})

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A token of the stand-in for Auth0. */
function issued(issuer: string, claims: object): string {
  const text = `${part({ alg: 'RS256', typ: 'JWT', kid: 'one' })}.${part({ iss: `${issuer}/`, aud: 'api', ...claims })}`
  return `${text}.${createSign('RSA-SHA256').update(text).sign(privateKey).toString('base64url')}`
}

const issuer = await startService((_request, response) => {
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }
  response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [key] }))
})
t.teardown(issuer.close)

works(t, 'fastify-auth0-verify', {
  plugins: `
    - package: fastify-auth0-verify
      options: { domain: '${issuer.url}', audience: api }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onRequest', fastify.authenticate)
      }`
  },
  client: async ({ ask }) => {
    const valid = issued(issuer.url, { sub: 'amy' })
    await ask('/api/page')
    await ask('/api/page', { headers: { authorization: `Bearer ${valid}` } })
    const expired = issued(issuer.url, { sub: 'amy', exp: 1 })
    await ask('/api/page', { headers: { authorization: `Bearer ${expired}` } })
  },
  masked: /Bearer [\w.-]+/g,
  expected: { requests: [{}], responses: [{ status: 401 }, { status: 200 }, { status: 401 }] }
})
