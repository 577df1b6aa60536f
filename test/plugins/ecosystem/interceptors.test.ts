// slow: installs packages
// undici's own interceptors, of the gateway's version and of the one before: on the control below @fastify/http-proxy.
import { gzipSync } from 'node:zlib'
import t from 'tap'
import type { Row } from './support.ts'
import { page, works } from './support.ts'

interface Interceptor {
  readonly name: string
  readonly options?: object
  readonly per: 'request' | 'attempt'
  readonly service: NonNullable<Row['service']>
  readonly asks: number
  readonly expected: Row['expected']
}

let attempts = 0

const interceptors: readonly Interceptor[] = [
  {
    name: 'cache',
    per: 'request',
    service: (_request, response) => {
      response.setHeader('cache-control', 'public, max-age=60')
      response.end(page)
    },
    asks: 2,
    expected: {
      requests: [{ url: '/api/page' }],
      responses: [
        { status: 200, body: page },
        { status: 200, headers: { age: '***' }, body: page }
      ]
    }
  },
  {
    name: 'decompress',
    per: 'request',
    service: (_request, response) => {
      response.setHeader('content-encoding', 'gzip').end(gzipSync(page))
    },
    asks: 1,
    expected: { responses: [{ status: 200, headers: { 'content-encoding': undefined }, body: page }] }
  },
  {
    name: 'redirect',
    options: { maxRedirections: 2 },
    per: 'request',
    service: ({ url }, response) => {
      if (url === '/api/there') response.end('there')
      else response.writeHead(302, { location: '/api/there' }).end()
    },
    asks: 1,
    expected: {
      requests: [{ url: '/api/page' }, { url: '/api/there' }],
      responses: [{ status: 200, body: 'there' }]
    }
  },
  {
    name: 'retry',
    options: { statusCodes: [500], minTimeout: 1, maxRetries: 2 },
    per: 'attempt',
    service: (_request, response) => {
      response.statusCode = ++attempts % 3 === 0 ? 200 : 500
      response.end(`attempt ${((attempts - 1) % 3) + 1}`)
    },
    asks: 1,
    expected: { requests: [{}, {}, {}], responses: [{ status: 200, body: 'attempt 3' }] }
  }
]

for (const [version, specifier] of [
  ['8', import.meta.resolve('undici')],
  ['7', 'undici']
]) {
  for (const { name, options = {}, per, service, asks, expected } of interceptors) {
    works(t, `undici ${version}: ${name}`, {
      plugins: `
        - path: ./plugin.js`,
      files: {
        'plugin.js': `
          import { Agent, interceptors } from '${specifier}'
          export default async (fastify) => {
            const interceptor = interceptors.${name}(${JSON.stringify(options)})
            if (fastify.mesh) fastify.mesh.use(interceptor, { per: '${per}', name: '${name}' })
            else fastify.decorate('agent', new Agent().compose(interceptor))
          }`
      },
      service,
      client: async ({ ask }) => {
        for (let count = 0; count < asks; count++) await ask('/api/page')
      },
      // Seconds: they may differ by one.
      masked: /(?<="age":")\d+(?=")/g,
      expected
    })
  }
}
