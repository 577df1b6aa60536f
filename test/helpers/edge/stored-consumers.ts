// A gateway whose consumers are in a key of Consul.
import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { get, startEcho, startWith } from '../gateway.ts'

export const hashOf = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`
export const named = (name: string, more: object = {}) => ({
  name,
  keyAuth: { hash: hashOf(`key-of-${name}`) },
  ...more
})
export const key = 'jingwei/consumers'

interface Started {
  url: string
  snapshot?: string
  token?: string
  more?: object
}

export const textFor = (service: string, { url, snapshot, token, more }: Started) =>
  JSON.stringify({
    listen: { port: 0 },
    admin: { port: 0 },
    discovery: {
      consul: { url, ...(token && { token }) },
      ...(snapshot && { snapshot: { path: snapshot } })
    },
    services: { any: { instances: [service] } },
    // Tests ask with unknown keys until a change applies.
    edge: { authentication: { failures: false }, keyAuth: {}, acl: { deny: ['blocked'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers: { consul: { key } },
    ...more
  })

export async function startGateway(t: Test, options: Started) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startWith(parseConfig(textFor(echo.url, options), '/nowhere/gateway.yaml', {}), { log: true })
  let isClosed = false
  const close = async () => {
    if (!isClosed) await gateway.close()
    isClosed = true
  }
  t.teardown(close)
  const statusOf = async (name: string) => (await get(gateway.port, '/', [`x-api-key: key-of-${name}`])).status
  const messages = () => gateway.log.map(({ msg }) => String(msg))
  return { ...gateway, close, statusOf, messages, registry: gateway.server.consumers }
}
