// A scripted Consul with one key, for failures that a real one does not have at will.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

/** A Consul that responds as it is told to. */
export async function fakeConsul(t: Test) {
  const state = { mode: 'hold', value: '[]', index: 1, asked: 0 }
  const server = createServer((_request, response) => {
    state.asked++
    if (state.mode === 'hold') return
    if (state.mode === 'status') return void response.writeHead(500).end('broken')
    response.writeHead(200, { 'x-consul-index': String(state.index) })
    if (state.mode === 'stall') return void response.write('[')
    if (state.mode === 'large') {
      const fill = (): void => {
        if (response.destroyed) return
        if (response.write('x'.repeat(1024 * 1024))) setImmediate(fill)
        else response.once('drain', fill)
      }
      return fill()
    }
    const known: Record<string, string> = {
      malformed: '{',
      other: '{}',
      binary: '[{"Value":"/w=="}]',
      empty: '[{"Value":null}]'
    }
    response.end(known[state.mode] ?? JSON.stringify([{ Value: Buffer.from(state.value).toString('base64') }]))
    if (known[state.mode] === undefined) state.mode = 'hold'
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    state,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    reset: () => server.closeAllConnections()
  }
}
