/** Reloads under load over TLS, by HTTP/1.1 and HTTP/2: no request fails, no session, connection or WebSocket closes. */
import t from 'tap'
import { selfSigned } from '../../helpers/self-signed.ts'
import { reloadsUnderLoad } from './traffic.ts'

t.test('50 reloads over TLS and HTTP/2 fail no request and close no connection', (t) =>
  reloadsUnderLoad(t, 50, selfSigned(t))
)
