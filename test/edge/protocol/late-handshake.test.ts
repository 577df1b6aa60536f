/** A TLS handshake that the client completes after the timeout: nothing is written to a connection without keys. */
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, startEcho, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** Forwards a connection; bytes of the client after its ClientHello wait until `release`. */
async function holding(t: Test, port: number) {
  let release = () => {}
  const proxy = await startRawService((client) => {
    const gateway = net.connect(port, '127.0.0.1')
    const held: Buffer[] = []
    let isFirst = true
    let isHolding = true
    release = () => {
      isHolding = false
      for (const chunk of held.splice(0)) gateway.write(chunk)
    }
    client.on('data', (chunk: Buffer) => {
      if (isHolding && !isFirst) held.push(chunk)
      else gateway.write(chunk)
      isFirst = false
    })
    gateway.on('data', (chunk: Buffer) => client.write(chunk))
    gateway.on('error', () => {})
    gateway.once('close', () => client.destroy())
    client.once('close', () => gateway.destroy())
  })
  t.teardown(proxy.close)
  return { port: proxy.port, release: () => release() }
}

for (const protocol of ['h2', 'http/1.1']) {
  t.test(`${protocol}: the connection is closed, and the gateway continues to serve`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const listen = { tls: selfSigned(t), http2: true, timeouts: { headers: '300ms' } }
    const { port, log } = await gatewayBefore(t, echo.url, { listen }, { log: true })
    const proxy = await holding(t, port)
    const late = tls.connect({
      port: proxy.port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ALPNProtocols: [protocol]
    })
    let received = ''
    late.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1')
    })
    late.on('error', () => {})
    const closed = new Promise((resolve) => late.once('close', resolve))
    await eventually(() => log.some(({ error }) => error === 'ERR_TLS_HANDSHAKE_TIMEOUT'))
    proxy.release()
    await closed
    t.equal(received, '')

    const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
    t.teardown(() => session.destroy())
    const stream = session.request({ ':path': '/' })
    const status = await new Promise((resolve) => stream.once('response', (headers) => resolve(headers[':status'])))
    t.equal(status, 200)
    stream.resume()
  })
}
