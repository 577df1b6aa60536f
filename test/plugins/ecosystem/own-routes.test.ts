// slow: installs packages
// Published plugins that bring routes of their own, beside the proxied ones.
import t from 'tap'
import { page, works } from './support.ts'

works(t, '@fastify/static', {
  plugins: `
    - package: '@fastify/static'
      options: { root: '\${FOLDER}', prefix: /files/, lastModified: false }`,
  files: { 'index.html': '<p>Hello</p>' },
  client: async ({ ask }) => {
    const { headers } = await ask('/files/')
    await ask('/files/index.html', { headers: { range: 'bytes=3-7' } })
    await ask('/files/index.html', { headers: { 'if-none-match': headers.etag! } })
    await ask('/files/index.html', { method: 'HEAD' })
    await ask('/files/missing')
    await ask('/api/page')
  },
  // The file's time.
  masked: /W\/\\"[^"]+"/g,
  expected: {
    requests: [{ url: '/api/page' }],
    responses: [
      { status: 200, headers: { 'content-type': /html/ }, body: '<p>Hello</p>' },
      { status: 206, headers: { 'content-range': 'bytes 3-7/12' }, body: 'Hello' },
      { status: 304 },
      { status: 200, headers: { 'content-length': '12' }, body: '' },
      { status: 404 },
      { status: 200, body: page }
    ]
  }
})

works(t, '@fastify/swagger and @fastify/swagger-ui', {
  plugins: `
    - package: '@fastify/swagger'
      options: { openapi: { info: { title: The API, version: '1.0' } } }
    - package: '@fastify/swagger-ui'
      options: { routePrefix: /docs }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        const schema = { response: { 200: { type: 'object', properties: { ok: { type: 'boolean' } } } } }
        fastify.get('/own', { schema }, async () => ({ ok: true, secret: 1 }))
      }`
  },
  client: async ({ ask, url }) => {
    await ask('/own')
    await ask('/docs/')
    // The two sides have routes of other shapes for the same requests.
    const { paths } = (await (await fetch(`${url}/docs/json`)).json()) as { paths: Record<string, object> }
    const proxied = Object.keys(paths).filter((path) => path.startsWith('/api'))
    const methods = [...new Set(proxied.flatMap((path) => Object.keys(paths[path]!)))].sort()
    return { methods, own: paths['/own'], others: Object.keys(paths).filter((path) => !/^\/(api|open|own)/.test(path)) }
  },
  expected: {
    responses: [
      { status: 200, body: { ok: true } },
      { status: 200, headers: { 'content-type': /html/ } }
    ],
    more: {
      methods: ['delete', 'get', 'head', 'options', 'patch', 'post', 'put'],
      own: { get: { responses: { 200: {} } } },
      others: []
    }
  }
})

// Below the control's http-proxy, a form that a parser has read cannot be forwarded; `bodies.test.ts` tests that it can here.
works(t, '@fastify/formbody', {
  plugins: `
    - package: '@fastify/formbody'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.post('/form', async (request) => request.body)
      }`
  },
  client: async ({ ask }) => {
    const form = { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'a=1&b=2' }
    await ask('/form', form)
    await ask('/api/page')
  },
  expected: {
    responses: [{ status: 200, body: { a: '1', b: '2' } }, { status: 200 }]
  }
})

const upload = {
  method: 'POST',
  headers: { 'content-type': 'multipart/form-data; boundary=x' },
  body: '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nsome text\r\n--x--\r\n'
}

works(t, '@fastify/multipart', {
  plugins: `
    - package: '@fastify/multipart'
      options: { limits: { fileSize: 1000 } }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.post('/upload', async (request) => {
          const file = await request.file()
          return { filename: file.filename, text: (await file.toBuffer()).toString() }
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/upload', upload)
    await ask('/api/page')
  },
  expected: {
    responses: [{ status: 200, body: { filename: 'a.txt', text: 'some text' } }, { status: 200 }]
  }
})

works(t, '@fastify/reply-from', {
  plugins: `
    - path: ./plugin.js
      options: { base: '\${UPSTREAM}' }`,
  files: {
    'plugin.js': `
      import replyFrom from '@fastify/reply-from'
      export default async (fastify, { base }) => {
        const { proxyClient: undici, proxyReplyOptions } = fastify
        await fastify.register(replyFrom, { base, ...(undici && { undici }) })
        fastify.get('/own/:id', (request, reply) =>
          reply.from('/order/' + request.params.id, {
            ...proxyReplyOptions,
            onResponse: async (_request, reply, { stream }) => {
              const order = await new Response(stream).json()
              reply.removeHeader('content-length')
              reply.send({ ...order, secret: undefined })
            }
          })
        )
      }`
  },
  service: (_request, response) => {
    response.setHeader('content-type', 'application/json').end('{"id":7,"secret":1}')
  },
  client: async ({ ask }) => {
    await ask('/own/7')
  },
  expected: {
    requests: [{ url: '/order/7' }],
    responses: [{ status: 200, body: { id: 7, secret: undefined } }]
  }
})

works(t, '@fastify/http-proxy', {
  plugins: `
    - package: '@fastify/http-proxy'
      options: { upstream: '\${UPSTREAM}', prefix: /own, rewritePrefix: /their }`,
  service: (request, response) => {
    response.statusCode = request.url === '/their/missing' ? 404 : 200
    response.end('of the service')
  },
  client: async ({ ask }) => {
    await ask('/own/page?a=1')
    await ask('/own/page', { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{"a":1}' })
    await ask('/own/missing')
    await ask('/own/page', { method: 'HEAD' })
  },
  expected: {
    requests: [
      { method: 'GET', url: '/their/page?a=1' },
      { method: 'PUT', url: '/their/page', body: '{"a":1}' },
      { url: '/their/missing' },
      { method: 'HEAD' }
    ],
    responses: [
      { status: 200, body: 'of the service' },
      { status: 200 },
      { status: 404, body: 'of the service' },
      { status: 200 }
    ]
  }
})

works(t, '@fastify/autoload', {
  plugins: `
    - package: '@fastify/autoload'
      options: { dir: '\${FOLDER}', matchFilter: route, options: { prefix: /bff } }`,
  files: {
    'route.js': `
      export default async (fastify) => {
        const body = { type: 'object', properties: { n: { type: 'number' } }, required: ['n'] }
        fastify.post('/double', { schema: { body } }, async (request) => ({ n: 2 * request.body.n }))
      }`
  },
  client: async ({ ask }) => {
    const headers = { 'content-type': 'application/json' }
    await ask('/bff/double', { method: 'POST', headers, body: '{"n":21}' })
    await ask('/bff/double', { method: 'POST', headers, body: '{}' })
    await ask('/api/double', { method: 'POST', headers, body: '{"n":21}' })
  },
  expected: {
    requests: [{ url: '/api/double', body: '{"n":21}' }],
    responses: [{ status: 200, body: { n: 42 } }, { status: 400 }, { status: 200 }]
  }
})

works(t, '@fastify/sse', {
  plugins: `
    - package: '@fastify/sse'
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.get('/events', { sse: true }, async (_request, reply) => {
          await reply.sse.send({ id: '1', data: 'one' })
          await reply.sse.send({ id: '2', event: 'last', data: { n: 2 } })
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/events', { headers: { accept: 'text/event-stream' } })
    await ask('/api/page')
  },
  expected: {
    responses: [
      {
        status: 200,
        headers: { 'content-type': 'text/event-stream' },
        body: /id: 1\ndata: "one"\n\nid: 2\nevent: last/
      },
      { status: 200 }
    ]
  }
})

works(t, 'fastify-healthcheck', {
  plugins: `
    - package: fastify-healthcheck`,
  client: async ({ ask }) => {
    await ask('/health')
    await ask('/api/page')
  },
  expected: { responses: [{ status: 200, body: { status: 'ok' } }, { status: 200 }] }
})

works(t, 'a plugin below a prefix', {
  plugins: `
    - path: ./bff.js
      prefix: /bff`,
  files: {
    'bff.js': `
      import cookie from '@fastify/cookie'
      export default async (fastify) => {
        await fastify.register(cookie)
        fastify.addHook('onRequest', async (_request, reply) => {
          reply.header('x-bff', 'yes')
        })
        fastify.get('/home', async (request, reply) => {
          reply.setCookie('seen', 'yes')
          return { home: request.cookies }
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/bff/home', { headers: { cookie: 'a=b' } })
    await ask('/home')
    await ask('/api/page')
  },
  expected: {
    responses: [
      { status: 200, headers: { 'x-bff': 'yes', 'set-cookie': ['seen=yes'] }, body: { home: { a: 'b' } } },
      { status: 404, headers: { 'x-bff': undefined } },
      { status: 200, headers: { 'x-bff': undefined } }
    ]
  }
})
