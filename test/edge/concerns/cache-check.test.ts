/** `edge.cache`: faults and warnings of its options, and what `explain` shows. */
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'

const service = 'services: { any: { instances: ["http://127.0.0.1:9000"] } }'

/** Returns the faults, or the warnings if there is no fault. */
function faultsOf(cache: string, methods = '[GET, POST]', more = ''): string[] {
  const match = `{ path: /, methods: ${methods} }`
  const text = `${service}\nroutes: [{ name: r, match: ${match}, service: any, edge: { cache: ${cache} } }]\n${more}\n`
  const warnings: string[] = []
  try {
    parseConfig(text, '/gateway.yaml', {}, ({ message }) => void warnings.push(message))
    return warnings
  } catch (error) {
    return (error as { faults: { message: string }[] }).faults.map(({ message }) => message)
  }
}

t.test('faults', async (t) => {
  const cases: [cache: string, fault: RegExp][] = [
    ['{ maxSize: 1mb, maxEntry: 512kb }', /more than a quarter of maxSize/],
    ['{ ttl: { 199: 5s } }', /expected a status from 200 to 599/],
    ['{ ttl: { default: 5s } }', /expected a status/],
    ['{ key: { ignoreHeaders: [Cookie] } }', /Cookie cannot be ignored/],
    ['{ key: { ignoreHeaders: [x-a, authorization] } }', /authorization cannot be ignored/],
    ['{ key: { consumer: true } }', /consumer/],
    ['{ cacheTtl: 5s }', /write ttl/],
    ['{ store: redis }', /needs the top-level "redis"/],
    ['{ strategy: redis }', /write store: redis/]
  ]
  for (const [cache, fault] of cases) {
    const found = faultsOf(cache)
    t.equal(found.length, 1, cache)
    t.match(found[0], fault, cache)
  }
  t.strictSame(faultsOf('{ ttl: { 200: 60s, 404: 5s }, key: { ignoreQuery: ["utm_*"] } }'), [])
})

t.test('warnings', async (t) => {
  t.match(faultsOf('{ ttl: { 200: 25h } }'), [/more than a day/])
  t.match(faultsOf('{}', '[POST]'), [/no effect: only GET and HEAD/])
  for (const status of [206, 304, 400, 429])
    t.match(faultsOf(`{ ttl: { ${status}: 5s } }`), [/no effect: a response with \d+ is never stored/])
  t.strictSame(faultsOf('{ ttl: { 200: 24h } }'), [])
  t.strictSame(faultsOf('{ store: redis }', '[GET]', 'redis: { url: "redis://127.0.0.1:6379" }'), [])
})
