// slow: installs packages
// Published plugins that read requests and set headers of responses, before a request is forwarded.
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import { works } from './support.ts'

/** Shows in response headers what a plugin's decorators say of a request. */
const show = (name: string, expression: string) => `
  export default async (fastify) => {
    fastify.addHook('onRequest', async (request, reply) => {
      reply.header('${name}', ${expression})
    })
  }`

works(
  t,
  '@fastify/helmet',
  {
    plugins: `
      - package: '@fastify/helmet'
        options:
          contentSecurityPolicy: { directives: { defaultSrc: ["'self'"] } }
          referrerPolicy: { policy: same-origin }`,
    client: async ({ ask }) => {
      await ask('/api/page')
      await ask('/nothing')
    },
    expected: {
      responses: [
        { status: 200, headers: { 'referrer-policy': 'same-origin', 'content-security-policy': /default-src 'self'/ } },
        { status: 404, headers: { 'x-frame-options': 'SAMEORIGIN' } }
      ]
    }
  },
  ['HTTP/1.1', 'HTTP/2']
)

works(t, '@fastify/accepts', {
  plugins: `
    - package: '@fastify/accepts'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onRequest', async (request) => {
          if (!request.type(['text'])) throw Object.assign(new Error('only text'), { statusCode: 406 })
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page', { headers: { accept: 'text/*' } })
    await ask('/api/page', { headers: { accept: 'image/png' } })
  },
  expected: { responses: [{ status: 200 }, { status: 406, body: { message: 'only text' } }] }
})

works(t, '@fastify/url-data', {
  plugins: `
    - package: '@fastify/url-data'
    - path: ./plugin.js`,
  files: { 'plugin.js': show('x-url', "request.urlData('path') + ' ' + request.urlData('query')") },
  client: async ({ ask }) => {
    await ask('/api/page?a=1&b=2')
  },
  expected: { responses: [{ status: 200, headers: { 'x-url': '/api/page a=1&b=2' } }] }
})

works(t, '@fastify/sensible', {
  plugins: `
    - package: '@fastify/sensible'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onRequest', async (request, reply) => {
          if (request.url === '/api/paid') throw fastify.httpErrors.paymentRequired('first pay')
          if (request.url === '/api/many') return reply.tooManyRequests()
          if (request.url === '/api/busy') throw fastify.httpErrors.serviceUnavailable('busy')
          reply.vary('x-tenant')
          reply.cacheControl('max-age', '1m')
        })
      }`
  },
  client: async ({ ask }) => {
    for (const path of ['/api/page', '/api/paid', '/api/many', '/api/busy']) await ask(path)
  },
  expected: {
    responses: [
      { status: 200, headers: { vary: 'x-tenant', 'cache-control': 'max-age=60' } },
      { status: 402, body: { message: 'first pay' } },
      { status: 429, body: { message: 'Too Many Requests' } },
      { status: 503, body: { message: 'busy' } }
    ]
  }
})

works(t, '@fastify/under-pressure', {
  plugins: `
    - package: '@fastify/under-pressure'
      options: { maxHeapUsedBytes: 1, retryAfter: 7, sampleInterval: 10, message: too busy }`,
  client: async ({ ask, server }) => {
    await waitFor(
      'the first sample',
      () => Reflect.apply(Reflect.get(server, 'isUnderPressure'), server, []) as boolean
    )
    await ask('/api/page')
  },
  expected: {
    requests: [],
    responses: [{ status: 503, headers: { 'retry-after': '7' }, body: { message: 'too busy' } }]
  }
})

works(t, '@fastify/under-pressure without pressure', {
  plugins: `
    - package: '@fastify/under-pressure'
      options: { maxHeapUsedBytes: 100000000000, exposeStatusRoute: true }`,
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/status')
  },
  expected: { responses: [{ status: 200 }, { status: 200, body: { status: 'ok' } }] }
})

works(t, '@fastify/request-context', {
  plugins: `
    - package: '@fastify/request-context'
      options: { defaultStoreValues: { user: default } }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import { requestContext } from '@fastify/request-context'
      const wait = () => new Promise((resolve) => setTimeout(resolve, 10))
      export default async (fastify) => {
        fastify.decorate('seen', [])
        fastify.addHook('onRequest', async (request) => {
          if (request.headers['x-user']) requestContext.set('user', request.headers['x-user'])
          await wait()
        })
        fastify.addHook('preHandler', async (_request, reply) => {
          reply.header('x-user', requestContext.get('user'))
        })
        fastify.addHook('onResponse', async (request) => {
          fastify.seen.push(request.headers['x-user'] + ' ' + requestContext.get('user'))
        })
      }`
  },
  client: async ({ ask, server }) => {
    await ask('/api/page')
    const users = ['amy', 'ben', 'cleo', 'dan']
    const responses = await Promise.all(users.map((user) => ask('/api/page', { headers: { 'x-user': user } })))
    await server.close()
    return {
      seen: (Reflect.get(server, 'seen') as string[]).sort(),
      users: responses.map(({ headers }) => headers['x-user'])
    }
  },
  // Four at once come in any order.
  masked: /(?<="x-user":")\w+/g,
  expected: {
    more: {
      seen: ['amy amy', 'ben ben', 'cleo cleo', 'dan dan', 'undefined default'],
      users: ['amy', 'ben', 'cleo', 'dan']
    }
  }
})

works(t, '@fastify/middie and cors', {
  plugins: `
    - package: '@fastify/middie'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import cors from 'cors'
      export default async (fastify) => {
        fastify.use(cors({ origin: 'https://app.example' }))
      }`
  },
  client: async ({ ask }) => {
    const headers = { origin: 'https://app.example', 'content-type': 'text/plain' }
    await ask('/api/page', { method: 'POST', headers, body: 'a body' })
    const preflight = { ...headers, 'access-control-request-method': 'POST' }
    await ask('/api/page', { method: 'OPTIONS', headers: preflight })
  },
  expected: {
    requests: [{ method: 'POST', body: 'a body' }],
    responses: [
      { status: 200, headers: { 'access-control-allow-origin': 'https://app.example' } },
      { status: 204, headers: { 'access-control-allow-methods': /POST/ } }
    ]
  }
})

works(t, '@fastify/express', {
  plugins: `
    - package: '@fastify/express'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.use((request, response, next) => {
          response.set('x-by', 'express')
          if (request.path === '/api/secret') response.status(403).json({ no: true })
          else next()
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page', { method: 'POST', headers: { 'content-type': 'text/plain' }, body: 'a body' })
    await ask('/api/secret')
  },
  expected: {
    requests: [{ method: 'POST', body: 'a body' }],
    responses: [
      { status: 200, headers: { 'x-by': 'express' } },
      { status: 403, body: { no: true } }
    ]
  }
})

works(t, '@fastify/cors', {
  plugins: `
    - package: '@fastify/cors'
      options: { origin: ['https://app.example'], credentials: true, maxAge: 60 }`,
  client: async ({ ask }) => {
    const headers = { origin: 'https://app.example' }
    await ask('/api/page', { headers })
    await ask('/api/page', { headers: { origin: 'https://other.example' } })
    const preflight = { ...headers, 'access-control-request-method': 'PUT', 'access-control-request-headers': 'x-a' }
    await ask('/api/page', { method: 'OPTIONS', headers: preflight })
  },
  expected: {
    requests: [{ method: 'GET' }, { method: 'GET' }],
    responses: [
      { status: 200, headers: { 'access-control-allow-origin': 'https://app.example', vary: 'Origin' } },
      { status: 200, headers: { 'access-control-allow-origin': undefined } },
      { status: 204, headers: { 'access-control-allow-credentials': 'true', 'access-control-max-age': '60' } }
    ]
  }
})

works(t, 'fastify-disablecache', {
  plugins: `
    - package: fastify-disablecache`,
  client: async ({ ask }) => {
    await ask('/api/page')
  },
  expected: { responses: [{ status: 200, headers: { 'cache-control': /no-store/, pragma: 'no-cache' } }] }
})

works(t, '@fastify/rate-limit', {
  plugins: `
    - package: '@fastify/rate-limit'
      options: { max: 2, timeWindow: 60000 }`,
  client: async ({ ask }) => {
    for (let request = 1; request <= 3; request++) await ask('/api/page')
  },
  // Seconds that are left.
  masked: /(?<="(x-ratelimit-reset|retry-after)":")\d+/g,
  expected: {
    responses: [
      { status: 200, headers: { 'x-ratelimit-limit': '2', 'x-ratelimit-remaining': '1' } },
      { status: 200, headers: { 'x-ratelimit-remaining': '0' } },
      { status: 429, headers: { 'retry-after': '***' } }
    ]
  }
})

works(t, '@fastify/cookie, reading', {
  plugins: `
    - package: '@fastify/cookie'
      options: { secret: a secret that is long enough }
    - path: ./plugin.js`,
  files: { 'plugin.js': show('x-theme', "request.cookies.theme ?? 'none'") },
  client: async ({ ask }) => {
    await ask('/api/page', { headers: { cookie: 'a=b; theme=dark' } })
    await ask('/api/page')
  },
  expected: {
    requests: [{ headers: { cookie: 'a=b; theme=dark' } }, {}],
    responses: [{ headers: { 'x-theme': 'dark' } }, { headers: { 'x-theme': 'none' } }]
  }
})

works(t, 'fastify-ip', {
  plugins: `
    - package: fastify-ip
      options: { order: [x-client-ip], strict: true }
    - path: ./plugin.js`,
  files: { 'plugin.js': show('x-ip', 'request.ip') },
  client: async ({ ask }) => {
    await ask('/api/page', { headers: { 'x-client-ip': '203.0.113.7' } })
  },
  expected: { responses: [{ headers: { 'x-ip': '203.0.113.7' } }] }
})
