// slow: installs packages
// Published plugins that log in, and read what they wrote in the requests that follow.
import t from 'tap'
import { startService } from '../../helpers/gateway.ts'
import { cookieOf, works } from './support.ts'

works(t, '@fastify/csrf-protection', {
  plugins: `
    - package: '@fastify/cookie'
    - package: '@fastify/csrf-protection'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.get('/token', async (_request, reply) => ({ token: reply.generateCsrf() }))
        fastify.addHook('preHandler', (request, reply, done) => {
          if (request.method === 'POST') fastify.csrfProtection(request, reply, done)
          else done()
        })
      }`
  },
  client: async ({ ask }) => {
    const form = await ask('/token')
    const headers = { cookie: cookieOf(form, '_csrf')!, 'content-type': 'text/plain' }
    const { token } = JSON.parse(form.body) as { token: string }
    const post = { method: 'POST', body: 'a body' }
    await ask('/api/page', { ...post, headers: { 'content-type': 'text/plain' } })
    await ask('/api/page', { ...post, headers: { ...headers, 'csrf-token': 'wrong' } })
    await ask('/api/page', { ...post, headers: { ...headers, 'csrf-token': token } })
  },
  masked: /(?<=_csrf=|token":")[\w-]+/g,
  expected: {
    requests: [{ method: 'POST', body: 'a body' }],
    responses: [{ status: 200 }, { status: 403 }, { status: 403 }, { status: 200 }]
  }
})

const provider = await startService((request, response) => {
  response.setHeader('content-type', 'application/json')
  request.resume().on('end', () => response.end('{"access_token":"at-123","token_type":"bearer","expires_in":3600}'))
})
t.teardown(provider.close)

works(t, '@fastify/oauth2, with @fastify/session', {
  plugins: `
    - package: '@fastify/cookie'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import oauth2 from '@fastify/oauth2'
      import session from '@fastify/session'
      export default async (fastify) => {
        const [secret, cookie] = ['a secret with a minimum length of 32 characters', { secure: false }]
        await fastify.register(session, { secret, cookie, rolling: false })
        await fastify.register(oauth2, {
          name: 'provider',
          credentials: {
            client: { id: 'gateway', secret: 'secret' },
            auth: { tokenHost: '${provider.url}', tokenPath: '/token', authorizePath: '/authorize' }
          },
          startRedirectPath: '/login',
          callbackUri: 'https://gateway.example/callback'
        })
        fastify.get('/callback', async (request) => {
          const { token } = await fastify.provider.getAccessTokenFromAuthorizationCodeFlow(request)
          request.session.token = token.access_token
          return 'in'
        })
        fastify.addHook('preHandler', async (request, reply) => {
          if (!request.url.startsWith('/api')) return
          if (request.session.token === undefined) return reply.code(401).send('log in')
          reply.header('x-token', request.session.token)
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page')
    const login = await ask('/login')
    const state = new URL(login.headers.location!).searchParams.get('state')!
    const callback = await ask(`/callback?code=abc&state=${state}`, {
      headers: { cookie: cookieOf(login, 'oauth2-redirect-state')! }
    })
    await ask('/api/page', { headers: { cookie: cookieOf(callback, 'sessionId')! } })
  },
  masked: /(?<=sessionId=)[^;"]+|(?<=state=)[\w.%-]+/g,
  expected: {
    requests: [{}],
    responses: [
      { status: 401 },
      { status: 302, headers: { location: /authorize/ } },
      { status: 200, body: 'in' },
      { status: 200, headers: { 'x-token': 'at-123' } }
    ]
  }
})
