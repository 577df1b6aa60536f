// slow: starts Redis
// Published plugins that watch and run a server, and bring it data.
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import { startRedis } from '../../helpers/redis.ts'
import { works } from './support.ts'

const redis = await startRedis()
t.teardown(redis.stop)

works(t, '@fastify/redis', {
  plugins: `
    - package: '@fastify/redis'
      options: { url: '${redis.url}', closeClient: true }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        await fastify.redis.del('count')
        fastify.addHook('onRequest', async (_request, reply) => {
          reply.header('x-count', await fastify.redis.incr('count'))
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page')
    await ask('/api/page')
  },
  expected: { responses: [{ headers: { 'x-count': '1' } }, { headers: { 'x-count': '2' } }] }
})

works(t, '@fastify/schedule', {
  plugins: `
    - package: '@fastify/schedule'
    - path: ./plugin.js
      options: { origin: '\${UPSTREAM}' }`,
  files: {
    'plugin.js': `
      import { AsyncTask, SimpleIntervalJob } from 'toad-scheduler'
      import { Agent } from 'undici'
      export default async (fastify, { origin }) => {
        let runs = 0
        const task = new AsyncTask('poll', async () => {
          if (++runs === 3) fastify.scheduler.removeById('poll')
          const dispatcher = fastify.mesh ?? new Agent()
          await (await dispatcher.request({ origin, path: '/polled', method: 'GET' })).body.dump()
        }, (error) => fastify.log.error(error))
        const job = new SimpleIntervalJob({ milliseconds: 20, runImmediately: true }, task, { id: 'poll' })
        fastify.addHook('onListen', async () => fastify.scheduler.addSimpleIntervalJob(job))
      }`
  },
  client: async ({ seen }) => {
    await waitFor('three runs', () => seen().length === 3)
  },
  expected: { requests: [{ url: '/polled' }, { url: '/polled' }, { url: '/polled' }] }
})

interface Span {
  readonly name: string
  readonly attributes: Record<string, unknown>
  readonly parentSpanContext?: { readonly spanId: string }
  readonly spanContext: () => { readonly spanId: string }
}

works(t, '@fastify/otel, the spans of requests and their handlers', {
  plugins: `
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      import { FastifyOtelInstrumentation } from '@fastify/otel'
      import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
      export default async (fastify) => {
        const exporter = new InMemorySpanExporter()
        const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
        const instrumentation = new FastifyOtelInstrumentation({ servername: 'gateway' })
        instrumentation.setTracerProvider(provider)
        await fastify.register(instrumentation.plugin())
        fastify.decorate('spans', exporter)
      }`
  },
  client: async ({ ask, server }) => {
    await ask('/api/page')
    await ask('/api/page', { method: 'POST', body: 'a body', headers: { 'content-type': 'text/plain' } })
    const exporter = Reflect.get(server, 'spans') as { getFinishedSpans: () => Span[] }
    const requests = () => exporter.getFinishedSpans().filter(({ name }) => name === 'request')
    await waitFor('the spans', () => requests().length === 2)
    const handlers = exporter.getFinishedSpans().filter(({ name }) => name.startsWith('handler'))
    // The pattern of the route differs: it is the control's own.
    return requests().map((span) => {
      const { 'http.route': _route, ...attributes } = span.attributes
      const { spanId } = span.spanContext()
      return {
        attributes,
        handlers: handlers.filter(({ parentSpanContext: parent }) => parent?.spanId === spanId).length
      }
    })
  },
  expected: {
    more: [
      {
        attributes: { 'http.request.method': 'GET', 'http.response.status_code': 200, 'url.path': '/api/page' },
        handlers: 1
      },
      { attributes: { 'http.request.method': 'POST', 'http.response.status_code': 200 }, handlers: 1 }
    ]
  }
})

works(t, 'fastify-metrics', {
  plugins: `
    - package: fastify-metrics
      options:
        endpoint: /app-metrics
        clearRegisterOnInit: true
        defaultMetrics: { enabled: false }
        routeMetrics: { registeredRoutesOnly: false }`,
  client: async ({ ask, url }) => {
    await ask('/api/page')
    await ask('/api/page')
    await waitFor('both requests in the metrics', async () => {
      const text = await (await fetch(`${url}/app-metrics`)).text()
      return /http_request_duration_seconds_count\{.*status_code="200"\} 2/.test(text)
    })
  },
  expected: { responses: [{ status: 200 }, { status: 200 }] }
})

works(t, '@fastify/env', {
  plugins: `
    - package: '@fastify/env'
      options:
        schema: { type: object, required: [GREETING], properties: { GREETING: { type: string } } }
        data: { GREETING: hello }
    - path: ./plugin.js`,
  files: {
    'plugin.js': `
      export default async (fastify) => {
        fastify.addHook('onRequest', async (_request, reply) => {
          reply.header('x-greeting', fastify.config.GREETING)
        })
      }`
  },
  client: async ({ ask }) => {
    await ask('/api/page')
  },
  expected: { responses: [{ headers: { 'x-greeting': 'hello' } }] }
})
