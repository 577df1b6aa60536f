/** The example commands that a start prints work with TLS. */
import t from 'tap'
import { curlByName } from '../../../../plugins/edge/protocol/tls/example-request.ts'
import { authority } from '../../../helpers/certificates.ts'
import { listening, scene } from './support.ts'

t.test('curl gets a response by a name of a certificate, with strict and for a wildcard, too', async (t) => {
  const { issue, folder } = scene(t)
  const ca = authority(folder, 'clients').file
  const [one, wild] = [issue('a.example'), issue('wild', ['*.b.example'])]
  const pairs = (...all: (typeof one)[]) => all.map(({ certFile: cert, keyFile: key }) => ({ cert, key }))
  const hosts = [{ names: ['a.example'], clientCertificate: { ca } }]
  for (const [tls, name] of [
    [{ certificates: pairs(one, wild), strict: true }, 'a.example'],
    [{ certificates: pairs(wild), strict: true }, 'www.b.example'],
    [{ certificates: pairs(one, wild), strict: true, hosts }, 'www.b.example']
  ] as const) {
    const { port, server } = await listening(t, tls)
    const args = curlByName(`https://127.0.0.1:${port}`, server.certificates())
    t.equal(args, `-k --resolve ${name}:${port}:127.0.0.1 https://${name}:${port}`)
  }
  const closed = await listening(t, { certificates: pairs(one), ca })
  t.equal(curlByName('https://127.0.0.1:1', closed.server.certificates()), null)
})
