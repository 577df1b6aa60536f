// slow: takes about 12 s
/** The gateway's own identity: leaf certificate and roots, with changes and failures. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { ConnectIdentity } from '../../../../plugins/mesh/connect/identity/connect.ts'
import { gated } from '../../../../plugins/mesh/connect/identity/gated.ts'
import type { Authority } from '../../../helpers/certificates.ts'
import { authority, folderFor } from '../../../helpers/certificates.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { logged } from '../support.ts'
import { scripted } from './support.ts'

const leafPath = '/v1/agent/connect/ca/leaf/gateway'
const rootsPath = '/v1/agent/connect/ca/roots'
const uri = 'spiffe://11111111-2222.consul/ns/default/dc/dc1/svc/gateway'

const folder = folderFor(t)
const first = authority(folder, 'first')
const second = authority(folder, 'second')

function leaf(by: Authority, name: string, days = 2) {
  const { cert, key } = by.issue(name, { san: `URI:${uri}`, days })
  return { CertPEM: cert, PrivateKeyPEM: key, ServiceURI: uri }
}
const roots = (...trusted: Authority[]) => ({
  TrustDomain: '11111111-2222.consul',
  Roots: trusted.map(({ cert }) => ({ RootCert: cert, IntermediateCerts: null }))
})

async function scene(t: Test) {
  const consul = await scripted(t)
  const { log, lines, of } = logged()
  const outcomes: string[] = []
  const deps = { log, meter: null, now: () => performance.now(), random: () => 0.1 }
  const identity = new ConnectIdentity('gateway', consul.get, consul.consul, deps, (outcome) => outcomes.push(outcome))
  t.teardown(() => identity.close())
  return { ...consul, identity, lines, of, outcomes }
}

t.test('the identity is ready with leaf and roots, renewed with either, and queries block', async (t) => {
  const { respond, held, requests, identity, outcomes, of } = await scene(t)
  let ready = 0
  identity.whenReady(() => ready++)
  respond(leafPath, leaf(first, 'one'), 10)
  identity.start()
  await eventually(() => held(leafPath) === 1, 'the question about the leaf')
  t.equal(identity.credentials, null)
  t.match(identity.status(), { spiffeId: null, error: /500/ })
  respond(rootsPath, roots(first), 20)
  await eventually(() => identity.credentials !== null, 'credentials')
  t.equal(ready, 1)
  t.match(identity, { trustDomain: '11111111-2222.consul', datacenter: 'dc1', error: null })
  t.match(identity.status(), { spiffeId: uri, error: null })

  const before = identity.credentials
  await eventually(() => held(leafPath) === 1 && held(rootsPath) === 1, 'blocking queries for leaf and roots')
  respond(leafPath, leaf(first, 'two', 3), 11)
  await eventually(() => identity.credentials !== before, 'the new leaf certificate')
  t.ok(identity.credentials!.expiresAt! > before!.expiresAt!)
  const renewed = identity.credentials
  respond(rootsPath, roots(second, first), 21)
  await eventually(() => identity.credentials !== renewed, 'the new root certificates')
  t.same(outcomes.filter((outcome) => outcome === 'success').length, 3)
  t.equal(ready, 1)
  t.equal(of('error').length, 1, 'the roots that failed at first')
  await eventually(() => held(leafPath) === 1 && held(rootsPath) === 1, 'blocking queries for leaf and roots again')
  const questions = requests.length
  await sleep(200)
  t.equal(requests.length, questions, 'no further queries')
  t.ok(requests.some((url) => url.includes('index=11&wait=60000ms')))
})

t.test('invalid responses change nothing, and are logged once', async (t) => {
  const { respond, identity, of, outcomes } = await scene(t)
  respond(leafPath, leaf(first, 'good'), 10)
  respond(rootsPath, roots(first), 20)
  identity.start()
  await eventually(() => identity.credentials !== null, 'credentials')
  const good = identity.credentials
  const { CertPEM } = leaf(first, 'a')
  const other = leaf(first, 'b')
  for (const bad of [
    {},
    { ...other, CertPEM: '' },
    { ...other, CertPEM },
    'not JSON',
    { ...other, PrivateKeyPEM: 7 }
  ]) {
    respond(leafPath, bad, 11)
    await eventually(() => identity.error !== null, 'the rejected leaf')
    await sleep(60)
    t.equal(identity.credentials, good, JSON.stringify(bad).slice(0, 40))
  }
  t.equal(of('error').length, 1)
  t.equal(outcomes.filter((outcome) => outcome === 'failure').length, 1)
  respond(leafPath, leaf(first, 'mended'), 12)
  await eventually(() => identity.error === null, 'the valid leaf')
  t.not(identity.credentials, good)
  for (const bad of [{ TrustDomain: 'x', Roots: [] }, { Roots: [{ RootCert: first.cert }] }, null]) {
    const now = identity.credentials
    respond(rootsPath, bad, 30)
    await eventually(() => identity.error !== null, 'the refusal of the roots')
    t.equal(identity.credentials, now)
    respond(rootsPath, roots(first), 31)
    await eventually(() => identity.error === null, 'the valid roots')
  }
})

t.test('an index that goes backwards is reset; a Consul that does not block is queried slowly', async (t) => {
  const { respond, identity, requests, held } = await scene(t)
  respond(leafPath, leaf(first, 'x'), 100)
  respond(rootsPath, roots(first), 20)
  identity.start()
  await eventually(() => held(leafPath) === 1, 'held')
  respond(leafPath, leaf(first, 'y'), 5)
  await eventually(() => held(leafPath) === 1, 'held at the lower index')
  const leafs = requests.filter((url) => url.startsWith(leafPath))
  t.ok(leafs.at(-1)!.includes('index=5&'), leafs.join(' '))
  const count = () => requests.filter((url) => url.startsWith(rootsPath)).length
  respond(rootsPath, roots(first), null)
  const before = count()
  await sleep(300)
  t.ok(count() - before <= 2, 'without an index, the roots are polled')
})

t.test('a source does not start until the gateway has its certificate', async (t) => {
  let then = () => {}
  const identity = {
    credentials: null as ConnectIdentity['credentials'],
    error: 'no leaf' as string | null,
    whenReady: (call: () => void) => {
      then = call
    }
  }
  let started = 0
  let closed = 0
  const source = {
    start: () => void started++,
    status: () => ({ kind: 'consul', confirmedAt: 1, error: null }),
    close: async () => void closed++
  }
  const one = gated(source, identity)
  one.start(() => {})
  t.equal(started, 0)
  t.match(one.status(), { error: 'no leaf' })
  then()
  t.equal(started, 1)
  identity.credentials = {} as NonNullable<ConnectIdentity['credentials']>
  t.match(one.status(), { error: null })
  const two = gated(source, identity)
  two.start(() => {})
  await two.close()
  then()
  t.equal(started, 1, 'closed before the certificate arrived')
  t.equal(closed, 1)
})
