/** Reloads under load over HTTP/1.1: no request fails, no connection and no WebSocket closes. */
import t from 'tap'
import { reloadsUnderLoad } from './traffic.ts'

t.test('50 reloads over HTTP/1.1 fail no request and close no connection', (t) => reloadsUnderLoad(t, 50))
