// slow: starts a gateway for each protocol
/** A client's own bearer token beside credentials in another place: removed by default, passed on by `keepAuthorization`. */
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { guardedByLogin, seenBy, startProvider } from '../../helpers/edge/openid-provider.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { startEcho, startGateway } from '../../helpers/gateway.ts'

const assertion = 'cf-access-jwt-assertion'
const good = token(claims())
const own = { authorization: 'Bearer for.the.service' }

async function cloudflare(t: Test, protocol: Protocol, jwt: object, edge: object = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startGateway({
    listen: listenFor(t, protocol),
    services: { any: { instances: [echo.url] } },
    edge: { jwt: { secret, from: { header: assertion }, ...jwt }, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  return async (headers: Record<string, string>) => {
    const { status, body } = await ask('/', { headers })
    return { status, headers: (JSON.parse(body.toString()) as Seen).headers }
  }
}

for (const protocol of protocols) {
  t.test(`a bearer token besides the one of jwt, over ${protocol}`, async (t) => {
    const removing = await cloudflare(t, protocol, {})
    t.match(await removing({ [assertion]: good, ...own }), { status: 200, headers: { authorization: undefined } })
    const keeping = await cloudflare(t, protocol, { keepAuthorization: true })
    const kept = await keeping({ [assertion]: good, ...own })
    t.match(kept, { status: 200, headers: own })
    t.notOk(kept.headers[assertion], 'the verified token is removed as always')
    t.match(await keeping(own), { status: 401 }, 'it is no token for the gateway')
    t.match(await keeping({ [assertion]: good.slice(0, -2), ...own }), { status: 401 })
    const anonymous = await cloudflare(
      t,
      protocol,
      { keepAuthorization: true },
      { authentication: { anonymous: 'me' } }
    )
    t.match(await anonymous(own), { status: 200, headers: own })
  })
}

t.test('beside a method that reads Authorization, it has no effect, and check warns', async (t) => {
  const edge = { introspection: { url: 'http://127.0.0.1:1', clientId: 'a', clientSecret: 'b' } }
  const ask = await cloudflare(
    t,
    'HTTP/1.1',
    { keepAuthorization: true },
    { ...edge, authentication: { require: 'any' } }
  )
  t.match(await ask({ [assertion]: good, ...own }), { status: 200, headers: { authorization: undefined } })
})

t.test('a bearer token beside a session', async (t) => {
  const provider = await startProvider(t)
  const { browser } = await guardedByLogin(t, provider, { oidc: { keepAuthorization: true } })
  const amy = browser()
  t.equal((await amy.visit('/app')).status, 200)
  t.match(seenBy(await amy.send('/app', { headers: own })).headers, own)
})
