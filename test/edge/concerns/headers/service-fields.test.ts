/** Fields of services that do not reach the client: concerns must not leave out their own in favour of these, nor pass them on. */
import type { Test } from 'tap'
import t from 'tap'
import { gatewayBefore, get, startService } from '../../../helpers/gateway.ts'

const paths = ['raw', 'reply'] as const

/** Starts a gateway before a service whose responses have these fields. */
async function gatewayWith(t: Test, fields: Record<string, string>, edge: object, status = 200) {
  const service = await startService((_request, response) => void response.writeHead(status, fields).end('body'))
  t.teardown(service.close)
  return gatewayBefore(t, service.url, { edge }, { log: true })
}

const own = { 'X-Frame-Options': 'DENY', Link: '</own>; rel=a', 'X-Old': 'old', 'X-Cost': '5' }
const concerns = { securityHeaders: true, deprecation: { link: '/docs' } }

for (const responsePath of paths) {
  t.test(
    `${responsePath}: only leaves no gap for the fields that other concerns add if the service has none`,
    async (t) => {
      const rules = { only: ['x-old'], set: { 'x-all': '{response.headers.x-cost}' } }
      const { port } = await gatewayWith(t, own, { ...concerns, responsePath, headers: { response: rules } })
      const { headers } = await get(port, '/')
      t.match(headers, { 'x-frame-options': 'SAMEORIGIN', 'x-old': 'old', 'x-all': '5' })
      t.equal(headers.link, '</docs>; rel="deprecation"')
      t.equal(headers['x-cost'], undefined)
    }
  )

  t.test(`${responsePath}: fields of the connection are those of no response`, async (t) => {
    const fields = { ...own, Connection: 'x-frame-options, link, x-old, x-add' }
    const rules = { rename: { 'x-old': 'x-new' }, add: { 'x-add': 'ours' } }
    const { port } = await gatewayWith(
      t,
      { ...fields, 'X-Add': 'theirs' },
      { ...concerns, responsePath, headers: { response: rules } }
    )
    const { headers } = await get(port, '/')
    t.match(headers, { 'x-frame-options': 'SAMEORIGIN', 'x-add': 'ours', link: '</docs>; rel="deprecation"' })
    t.equal(headers['x-new'] ?? headers['x-old'], undefined)
  })

  t.test(`${responsePath}: a response that replaces that of the service has none of its fields`, async (t) => {
    const edge = { ...concerns, responsePath, errorPages: { pages: { default: { text: 'page' } }, upstream: true } }
    const { port } = await gatewayWith(t, own, edge, 500)
    const { status, headers, body } = await get(port, '/')
    t.match({ status, body }, { status: 500, body: 'page' })
    t.match(headers, { 'x-frame-options': 'SAMEORIGIN', link: '</docs>; rel="deprecation"' })
    t.equal(headers['x-old'], undefined)
  })
}

t.test('concerns and the access log that read a field see it all the same', async (t) => {
  const edge = {
    rateLimit: { max: 10, window: '1h', costHeader: 'x-cost' },
    accessLog: { responseHeaders: ['x-old'] },
    headers: { response: { only: ['x-none'] } }
  }
  const { port, log } = await gatewayWith(t, own, edge)
  const remaining = async () => (await get(port, '/')).headers['ratelimit-remaining']
  await remaining()
  t.equal(await remaining(), '4')
  t.ok(log.some((line) => JSON.stringify(line).includes('"old"')))
})
