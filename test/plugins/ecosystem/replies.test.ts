// slow: installs packages
// Published plugins that work in `onSend`: on routes with them, a service's response goes through Fastify's reply.
import t from 'tap'
import type { Row } from './support.ts'
import { cookieOf, page, works } from './support.ts'

// First, as its timer outlives the server by five seconds.
const failing = (slowMs: number) => `
  import breaker from '@fastify/circuit-breaker'
  export default async (fastify) => {
    await fastify.register(breaker, { threshold: 2, timeout: ${slowMs}, resetTimeout: 5000 })
    fastify.addHook('onRoute', (route) => {
      if (route.url.startsWith('/api')) route.preHandler = fastify.circuitBreaker()
    })
  }`

works(t, '@fastify/circuit-breaker, opened by failures', {
  plugins: `
    - path: ./plugin.js`,
  files: { 'plugin.js': failing(10_000) },
  service: (_request, response) => {
    response.writeHead(500).end('failed')
  },
  client: async ({ ask }) => {
    for (let count = 0; count < 3; count++) await ask('/api/page')
  },
  expected: { requests: [{}, {}], responses: [{ status: 500, body: 'failed' }, { status: 503 }, { status: 503 }] }
})

works(t, '@fastify/circuit-breaker, opened by slow responses', {
  plugins: `
    - path: ./plugin.js`,
  files: { 'plugin.js': failing(20) },
  service: (_request, response) => {
    setTimeout(() => response.end('late'), 100)
  },
  client: async ({ ask }) => {
    for (let count = 0; count < 3; count++) await ask('/api/page')
  },
  expected: { requests: [{}], responses: [{ status: 503 }, { status: 503 }, { status: 503 }] }
})

works(
  t,
  '@fastify/compress',
  {
    plugins: `
      - package: '@fastify/compress'
        options: { threshold: 100, encodings: [br, gzip] }`,
    service: ({ url }, response) => {
      const body = url === '/api/short' ? 'short' : page
      response.writeHead(200, { 'content-type': 'text/plain', 'content-length': body.length }).end(body)
    },
    client: async ({ ask }) => {
      for (const encoding of ['gzip', 'br', 'identity'])
        await ask('/api/page', { headers: { 'accept-encoding': encoding } })
      await ask('/api/page')
      await ask('/api/page', { method: 'HEAD', headers: { 'accept-encoding': 'gzip' } })
      await ask('/api/page', { method: 'POST', body: 'a body', headers: { 'accept-encoding': 'gzip' } })
    },
    expected: {
      responses: [
        { status: 200, headers: { 'content-encoding': 'gzip', vary: 'accept-encoding' }, body: page },
        { status: 200, headers: { 'content-encoding': 'br' }, body: page },
        { status: 200, headers: { 'content-encoding': undefined }, body: page },
        { status: 200, headers: { 'content-encoding': undefined }, body: page },
        { status: 200, body: '' },
        { status: 200, headers: { 'content-encoding': 'gzip' }, body: page }
      ]
    }
  },
  ['HTTP/1.1', 'HTTP/2']
)

works(t, '@fastify/caching', {
  plugins: `
    - package: '@fastify/caching'
      options: { privacy: public, expiresIn: 300, serverExpiresIn: 600 }`,
  client: async ({ ask }) => {
    await ask('/api/page')
  },
  expected: { responses: [{ status: 200, headers: { 'cache-control': 'public, max-age=300, s-maxage=600' } }] }
})

// Without a length: where a hook replaces the body, the gateway drops that of the service, the control keeps it.
const ofUnknownLength: Row['service'] = (_request, response) => {
  response.setHeader('content-type', 'text/plain').write(page)
  response.end()
}

for (const scope of ['all', 'routes']) {
  works(t, `@fastify/throttle, scope: ${scope}`, {
    plugins: `
      - package: '@fastify/throttle'
        scope: ${scope}
        options: { bytesPerSecond: 1000 }`,
    service: ofUnknownLength,
    client: async ({ ask }) => {
      const began = performance.now()
      await ask('/api/page')
      // 1,000 bytes at once, 935 more in the time that they take.
      return { isSlow: performance.now() - began > 800 }
    },
    expected: { responses: [{ status: 200, body: page }], more: { isSlow: true } }
  })
}

works(t, '@fastify/cookie, writing', {
  plugins: `
    - package: '@fastify/cookie'
      options: { secret: a secret that is long enough }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onRequest', async (_request, reply) => {
          reply.setCookie('seen', 'yes', { path: '/', signed: true })
        })
      }`
  },
  service: (_request, response) => {
    response.setHeader('set-cookie', ['a=1; Path=/', 'b=2']).end(page)
  },
  client: async ({ ask }) => {
    await ask('/api/page')
  },
  expected: { responses: [{ status: 200, headers: { 'set-cookie': [/./, /./, /./] } }] }
})

const counting = `
  export default async (fastify) => {
    fastify.addHook('preHandler', async ({ session }, reply) => {
      const views = (session.get('views') ?? 0) + 1
      session.set('views', views)
      reply.header('x-views', views)
    })
  }`

works(t, '@fastify/session, writing', {
  plugins: `
    - package: '@fastify/cookie'
    - package: '@fastify/session'
      options: { secret: a secret with a minimum length of 32 characters, cookie: { secure: false } }
    - path: ./plugin.js`,
  files: { 'plugin.js': counting },
  client: async ({ ask }) => {
    let cookie: string | undefined
    for (let count = 0; count < 3; count++) {
      cookie =
        cookieOf(await ask('/api/page', { headers: cookie === undefined ? {} : { cookie } }), 'sessionId') ?? cookie
    }
  },
  masked: /(?<=sessionId=)[^;"]+/g,
  expected: {
    responses: [
      { headers: { 'x-views': '1', 'set-cookie': [/sessionId/] } },
      { headers: { 'x-views': '2' } },
      { headers: { 'x-views': '3' } }
    ]
  }
})

works(t, '@fastify/secure-session, writing', {
  plugins: `
    - package: '@fastify/secure-session'
      options:
        secret: a secret with a minimum length of 32 characters
        salt: mq9hDxBVDbspDR6n
        cookie: { path: / }
    - path: ./plugin.js`,
  files: { 'plugin.js': counting },
  client: async ({ ask }) => {
    let cookie: string | undefined
    for (let count = 0; count < 3; count++) {
      cookie = cookieOf(await ask('/api/page', { headers: cookie === undefined ? {} : { cookie } }), 'session')
    }
  },
  masked: /(?<=session=)[^;"]+/g,
  expected: {
    responses: [
      { headers: { 'x-views': '1', 'set-cookie': [/session=/] } },
      { headers: { 'x-views': '2', 'set-cookie': [/session=/] } },
      { headers: { 'x-views': '3', 'set-cookie': [/session=/] } }
    ]
  }
})

works(
  t,
  'on one route alone: @fastify/compress, @fastify/caching and a hook of a wrapper',
  {
    plugins: `
      - package: '@fastify/compress'
        scope: routes
        options: { threshold: 100 }
      - package: '@fastify/caching'
        scope: routes
        options: { privacy: private, expiresIn: 10 }
      - path: ./plugin.js
        scope: routes`,
    files: {
      'plugin.js': `
        export default async (fastify) => {
          fastify.addHook('onSend', async (_request, reply, payload) => {
            reply.header('x-status', reply.statusCode)
            return payload
          })
        }`
    },
    client: async ({ ask }) => {
      const headers = { 'accept-encoding': 'gzip' }
      await ask('/api/page', { headers })
      await ask('/open/page', { headers })
    },
    expected: {
      responses: [
        {
          status: 200,
          headers: { 'content-encoding': 'gzip', 'cache-control': 'private, max-age=10', 'x-status': '200' },
          body: page
        },
        { status: 200, headers: { 'content-encoding': undefined, 'cache-control': undefined, 'x-status': undefined } }
      ]
    }
  },
  ['HTTP/1.1', 'HTTP/2']
)

works(t, 'an error page of a hook in place of the response of a service', {
  plugins: `
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onSend', async (_request, reply, payload) => {
          if (reply.statusCode < 500) return payload
          payload.resume?.()
          reply.removeHeader('content-length')
          reply.type('text/html')
          return '<h1>Sorry</h1>'
        })
      }`
  },
  service: ({ url }, response) => {
    response.statusCode = url === '/api/broken' ? 500 : 200
    response.end('of the service')
  },
  client: async ({ ask }) => {
    await ask('/api/fine')
    await ask('/api/broken')
  },
  expected: {
    responses: [
      { status: 200, body: 'of the service' },
      { status: 500, headers: { 'content-type': /html/ }, body: '<h1>Sorry</h1>' }
    ]
  }
})

works(t, 'twenty plugins together', {
  plugins: `
    - package: '@fastify/helmet'
    - package: '@fastify/cors'
      options: { origin: https://app.example }
    - package: '@fastify/compress'
      options: { threshold: 100 }
    - package: '@fastify/cookie'
    - package: '@fastify/session'
      options: { secret: a secret with a minimum length of 32 characters, cookie: { secure: false } }
    - package: '@fastify/csrf-protection'
    - package: '@fastify/sensible'
    - package: '@fastify/accepts'
    - package: '@fastify/url-data'
    - package: '@fastify/request-context'
    - package: '@fastify/rate-limit'
      options: { max: 100, timeWindow: 60000 }
    - package: '@fastify/bearer-auth'
      options: { keys: [one-key] }
    - package: '@fastify/swagger'
    - package: '@fastify/swagger-ui'
      options: { routePrefix: /docs }
    - package: '@fastify/static'
      options: { root: '\${FOLDER}', prefix: /files/ }
    - package: '@fastify/schedule'
    - package: '@fastify/sse'
    - package: '@fastify/middie'
    - package: fastify-disablecache
    - package: fastify-healthcheck
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('preHandler', async (request) => {
          request.session.set('path', request.urlData('path'))
        })
      }`
  },
  client: async ({ ask }) => {
    const headers = { 'accept-encoding': 'gzip', authorization: 'Bearer one-key', origin: 'https://app.example' }
    await ask('/api/page', { headers })
    await ask('/api/page')
  },
  masked: /(?<=sessionId=)[^;"]+|(?<="x-ratelimit-reset":")\d+/g,
  expected: {
    requests: [{}],
    responses: [
      {
        status: 200,
        headers: {
          'access-control-allow-origin': 'https://app.example',
          'cache-control': /no-store/,
          'content-encoding': 'gzip',
          'set-cookie': [/sessionId/],
          'x-frame-options': 'SAMEORIGIN',
          'x-ratelimit-remaining': '99'
        },
        body: page
      },
      { status: 401, headers: { 'x-frame-options': 'SAMEORIGIN' } }
    ]
  }
})
