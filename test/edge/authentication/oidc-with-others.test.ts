// slow: starts an OpenID provider, and hashes passwords
import t from 'tap'
import { hashOf } from '../../../plugins/edge/concerns/basic-auth/hashes.ts'
import { guardedByLogin, pageLoad, seenBy, startProvider } from '../../helpers/edge/openid-provider.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'

const fetching = { 'sec-fetch-mode': 'cors' }

t.test('oidc is one of several methods of a route', async (t) => {
  const provider = await startProvider(t)
  const config = { consumers: [{ name: 'robot', basicAuth: { username: 'robot', hash: await hashOf('secret') } }] }
  const basic = `Basic ${Buffer.from('robot:secret').toString('base64')}`
  const wrong = `Basic ${Buffer.from('robot:wrong').toString('base64')}`
  const any = await guardedByLogin(t, provider, { config, edge: { basicAuth: {}, authentication: { require: 'any' } } })
  const amy = any.browser()
  t.equal((await amy.send('/app', { headers: { authorization: basic } })).status, 200, 'a password')
  const failed = await amy.send('/app', { headers: { ...pageLoad, authorization: wrong } })
  t.equal(failed.status, 401, 'a wrong password is not sent to the login')
  const none = await amy.send('/app', { headers: fetching })
  t.equal(
    none.headers['www-authenticate'],
    'Basic realm="jingwei", charset="UTF-8", Cookie realm="jingwei", login="/oidc/login"'
  )
  t.equal((await amy.visit('/app')).status, 200, 'a login')
  const both = await amy.send('/app', { headers: { authorization: wrong } })
  t.equal(both.status, 200)
  t.notOk(seenBy(both).headers.authorization, 'credentials that were not verified do not reach the service')

  const all = await guardedByLogin(t, provider, { config, edge: { basicAuth: {}, authentication: { require: 'all' } } })
  const bob = all.browser()
  t.equal((await bob.send('/app', { headers: pageLoad })).status, 401, 'the password first')
  t.equal((await bob.visit('/app', { ...pageLoad, authorization: basic })).status, 200, 'then the login')

  const anonymous = await guardedByLogin(t, provider, { edge: { authentication: { anonymous: 'guest' } } })
  const cleo = anonymous.browser()
  t.equal((await cleo.visit('/app')).hops.length, 0, 'without a session, a guest')
  await cleo.visit('/oidc/login?return_to=/app')
  await eventually(() => anonymous.lines().some(({ consumer }) => consumer === 'amy'))
  t.ok(anonymous.lines().some(({ consumer }) => consumer === 'guest'))
  const [name] = [...cleo.cookies][0]!
  const spoilt = await cleo.send('/app', { headers: { cookie: `${name}=spoilt` } })
  t.equal(spoilt.status, 401, 'a session that is over is no guest')
})

t.test('a bearer token beside a session does not reach the service, unless it was verified', async (t) => {
  const provider = await startProvider(t)
  const alone = await guardedByLogin(t, provider)
  const amy = alone.browser()
  t.equal((await amy.visit('/app')).status, 200)
  const forged = { authorization: 'Bearer forged.token.here' }
  t.notOk(seenBy(await amy.send('/app', { headers: forged })).headers.authorization)
  const basic = { authorization: 'Basic YTpi' }
  t.match(seenBy(await amy.send('/app', { headers: basic })).headers, basic, 'credentials for the service')
  const jwt = { jwt: { secret }, authentication: { require: 'all' } }
  const both = await guardedByLogin(t, provider, { edge: jwt })
  const bob = both.browser()
  const verified = { authorization: `Bearer ${token(claims())}` }
  t.match(seenBy(await bob.visit('/app', { ...pageLoad, ...verified })).headers, verified)
})
