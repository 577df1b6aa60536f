// slow: takes about 4 s
/** User names and passwords: every spelling, the cache under a change of the password, and a flood of guesses. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { hashFault, hashOf, isPasswordOf } from '../../../plugins/edge/concerns/basic-auth/hashes.ts'
import { Passwords } from '../../../plugins/edge/concerns/basic-auth/passwords.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { configOf, raw, startEcho, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const cheap = async (password: string) => {
  const { scryptSync } = await import('node:crypto')
  const digest = scryptSync(password.normalize('NFC'), 'saltsaltsalt', 32, { N: 16, r: 1, p: 1 })
  const text = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '')
  return `$scrypt$ln=4,r=1,p=1$${text(Buffer.from('saltsaltsalt'))}$${text(digest)}`
}
const alice = {
  name: 'alice',
  groups: ['gold'],
  basicAuth: { username: 'Al\u00e9', hash: await cheap('pass:w\u00f6rd') }
}
const bob = { name: 'bob', basicAuth: { username: 'bob', hash: await cheap('b') } }

interface Options {
  protocol?: Protocol
  edge?: object
  consumers?: object
  services?: object
}

async function gatewayWith(t: Test, { protocol = 'HTTP/1.1', edge = {}, consumers = [alice, bob], services }: Options) {
  const service = await startEcho()
  t.teardown(service.close)
  const root = await folder(t, { 'people.json': JSON.stringify([alice]) })
  const text = JSON.stringify({
    listen: { port: 0, ...listenFor(t, protocol) },
    services: services ?? { any: { instances: [service.url] } },
    edge: { basicAuth: { realm: 'api' }, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const outcome = async (authorization?: string | string[]) => {
    const before = lines().length
    const headers = (authorization === undefined ? {} : { authorization }) as Record<string, string>
    const { status } = await ask('/', { headers })
    await eventually(() => lines().length > before)
    return [status, lines().at(-1)?.reason ?? lines().at(-1)?.consumer]
  }
  return { ...gateway, root, ask, outcome }
}

const basic = (text: string | Buffer, scheme = 'Basic') => `${scheme} ${Buffer.from(text).toString('base64')}`
const ok = basic('Al\u00e9:pass:w\u00f6rd')

for (const protocol of protocols) {
  t.test(`each spelling of user name and password over ${protocol}`, async (t) => {
    const { outcome, ask } = await gatewayWith(t, { protocol })
    t.same(await outcome(ok), [200, 'alice'])
    t.same(await outcome(ok), [200, 'alice'], 'from the cache')
    t.same(await outcome(basic('Ale\u0301:pass:wo\u0308rd', 'bASIC')), [200, 'alice'], 'another normalization')
    t.same(await outcome(ok.replace(' ', '   ')), [200, 'alice'])
    t.same(await outcome(basic('bob:b')), [200, 'bob'])
    t.same(await outcome(), [401, 'basic_missing'])
    t.same(await outcome('Bearer abc'), [401, 'basic_missing'])
    for (const wrong of [
      'Al\u00e9:pass',
      'al\u00e9:pass:w\u00f6rd',
      'bob:',
      'bob:B',
      'eve:b',
      'bob:pass:w\u00f6rd',
      'alice:b'
    ]) {
      t.same(await outcome(basic(wrong)), [401, 'basic_wrong'], wrong)
    }
    const malformed = [
      'Basic',
      basic(':b'),
      basic('bob'),
      basic('bob:b\0'),
      basic('bob:b\n'),
      basic(Buffer.from([0x62, 0x3a, 0xff])),
      `${basic('bob:b')}=`,
      'Basic Ym9iOmJ',
      'Basic Ym9iOmK=',
      'Basic Ym9i-_8=',
      `${basic('bob:b')} x`,
      `${basic('bob:b')}, ${basic('bob:b')}`
    ]
    for (const text of malformed) t.same(await outcome(text), [401, 'basic_malformed'], text)
    t.same((await outcome(`Basic\t${ok.slice(6)}`))[0], 401)
    if (protocol !== 'HTTP/2') t.same(await outcome(`${ok}\r\nAuthorization: ${ok}`), [401, 'basic_repeated'])
    if (protocol !== 'HTTP/2') t.same(await outcome(`Bearer a\r\nauthorization: ${ok}`), [401, 'basic_repeated'])

    const refused = await ask('/', { headers: { authorization: basic('bob:no') } })
    t.equal(refused.headers['www-authenticate'], 'Basic realm="api", charset="UTF-8"')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_CREDENTIALS_INVALID', statusCode: 401 })
    t.notMatch(refused.body.toString(), /bob/)
    const seen = JSON.parse((await ask('/', { headers: { authorization: ok } })).body.toString()) as Seen
    t.equal(seen.headers.authorization, undefined, 'the service does not get the password')
  })
}

t.test('with any, basic and bearer credentials share a header', async (t) => {
  const edge = { jwt: { secret }, authentication: { require: 'any' } }
  const { outcome, ask } = await gatewayWith(t, { edge })
  t.same(await outcome(ok), [200, 'alice'])
  t.same(await outcome(`Bearer ${token(claims({ sub: 'x' }))}`), [200, 'x'])
  t.same(await outcome(basic('bob:no')), [401, 'basic_wrong'])
  const seen = async (authorization: string) =>
    (JSON.parse((await ask('/', { headers: { authorization } })).body.toString()) as Seen).headers.authorization
  const bearer = `Bearer ${token(claims({ sub: 'x' }))}`
  t.equal(await seen(bearer), bearer, 'a verified token reaches the service, as with jwt alone')
  t.equal(await seen(ok), undefined)
  const { headers } = await ask('/')
  t.equal(headers['www-authenticate'], 'Basic realm="api", charset="UTF-8", Bearer realm="jingwei"')
})

t.test('a WebSocket handshake needs credentials', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, { services: { any: { instances: [service.url] } } })
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  const { peer } = await open(port, '/ws', [`authorization: ${ok}`])
  peer.socket.destroy()
  t.notMatch(service.requests[0]!.rawHeaders.join(), /authorization/i)
})

t.test('a changed password takes effect at once, although the old one is cached', async (t) => {
  const { root, outcome } = await gatewayWith(t, { consumers: { file: 'people.json' } })
  t.same(await outcome(ok), [200, 'alice'])
  const changed = { ...alice, basicAuth: { ...alice.basicAuth, hash: await cheap('new') } }
  await writeFile(join(root, 'people.json'), JSON.stringify([changed]))
  await eventually(async () => (await outcome(ok))[0] === 401)
  t.same(await outcome(basic('Al\u00e9:new')), [200, 'alice'])
  await writeFile(join(root, 'people.json'), JSON.stringify([{ name: 'alice' }]))
  await eventually(async () => (await outcome(basic('Al\u00e9:new')))[0] === 401)
})

t.test('guesses are limited by address', async (t) => {
  const { outcome } = await gatewayWith(t, { edge: { authentication: { failures: { max: 2, window: '1h' } } } })
  t.same(await outcome(ok), [200, 'alice'])
  t.same(await outcome(basic('bob:1')), [401, 'basic_wrong'])
  t.same(await outcome(basic('nobody:1')), [401, 'basic_wrong'])
  t.same(await outcome(ok), [429, 'auth_failures'], 'cached credentials, too: otherwise a guess of them would show')
})

for (const protocol of protocols) {
  t.test(`valid logins at the same time are no failures over ${protocol}`, async (t) => {
    const edge = { authentication: { failures: { max: 1, window: '1h' } } }
    const { ask } = await gatewayWith(t, { protocol, edge })
    const logins = Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? ok : basic('bob:b')))
    const responses = await Promise.all(logins.map((authorization) => ask('/', { headers: { authorization } })))
    t.same(new Set(responses.map(({ status }) => status)), new Set([200]))
  })
}

t.test('guesses at the same time learn no more than successive ones', async (t) => {
  const jwt = { secret }
  const edge = { jwt, authentication: { require: 'any', failures: { max: 2, window: '1h' } } }
  const { ask, log } = await gatewayWith(t, { protocol: 'HTTP/2', edge })
  const guesses = ['1', '2', '3', '4', '5', '6', 'b'].map((password) => basic(`bob:${password}`))
  const responses = await Promise.all(guesses.map((authorization) => ask('/', { headers: { authorization } })))
  const statuses = responses.map(({ status }) => status)
  t.same(statuses.toSorted(), [401, 401, 429, 429, 429, 429, 429])
  t.equal(statuses.at(-1), 429, 'the right one, too')
  await eventually(() => log.filter(({ msg }) => msg === 'request').length === guesses.length)
  t.notMatch(JSON.stringify(log), /"consumer":"bob"/, 'a refused request has no consumer')
})

/** A queue of passwords whose hashes end when a test says so. */
function passwordQueue() {
  const running: ((isRight: boolean) => void)[] = []
  const started: string[] = []
  const verify = (_hash: string, password: string) => {
    started.push(password)
    return new Promise<boolean>((resolve) => running.push(resolve))
  }
  const passwords = new Passwords(verify)
  const ask = (password: string, client: string, hash = 'h') =>
    Promise.resolve(passwords.isPasswordOf({ username: 'u', hash, password }, client)).catch(
      ({ code, isExcess }) => `${code}${isExcess ? ' excess' : ''}`
    )
  return { passwords, running, started, ask }
}

t.test('few passwords are hashed at a time, few wait, and equal ones are hashed once', async (t) => {
  const { passwords, running, ask } = passwordQueue()
  const first = [ask('1', 'a'), ask('2', 'a'), ask('1', 'b')]
  t.equal(running.length, 2)
  const waiting = Array.from({ length: 8 }, (_, index) => ask(`w${index}`, 'a'))
  t.equal(await ask('one more', 'a'), 'JW_AUTH_BUSY excess', 'of one client')
  const others = Array.from({ length: 56 }, (_, index) => ask(`o${index}`, `c${index}`))
  t.equal(running.length, 2)
  running[0]!(true)
  running[1]!(false)
  t.same(await Promise.all(first), [true, false, true])
  t.equal(passwords.isPasswordOf({ username: 'u', hash: 'h', password: '1' }, 'a'), true, 'cached')
  const other = passwords.isPasswordOf({ username: 'v', hash: 'h', password: '1' }, 'q')
  t.type(other, Promise, 'not for another user')
  void Promise.resolve(other).catch(() => {})
  await eventually(() => running.length === 4)
  passwords.close()
  running[2]!(true)
  running[3]!(true)
  t.same([await others[0], await others[1]], [true, true], 'first those of clients for whom none was hashed')
  const rest = await Promise.all([...waiting, ...others.slice(2)])
  t.ok(rest.every((outcome) => outcome === 'JW_AUTH_BUSY'))
})

t.test(
  'many addresses with wrong passwords do not delay others, and bcrypt delays no other kind of hash',
  async (t) => {
    const { passwords, running, started, ask } = passwordQueue()
    const bcrypt = '$2b$14$'
    const guess = (password: string, client: string) => ask(password, client, bcrypt)
    const attackers = Array.from({ length: 70 }, (_, index) => `a${index}`)
    void guess('first', attackers[0]!)
    // One round, after which each of them has used the thread.
    const round = attackers.slice(1, 60).map((client) => guess(`${client} 0`, client))
    for (let index = 0; index < 60; index++) {
      await eventually(() => running.length === index + 1, `password ${index}`)
      if (index < 59) running[index]!(false)
    }
    t.equal(started.length, 60)
    const second = attackers.slice(0, 60).map((client) => guess(`${client} 1`, client))
    const third = attackers.slice(0, 4).map((client) => guess(`${client} 2`, client))
    const user = guess('user', 'z')
    t.equal(await third[0], 'JW_AUTH_BUSY excess', 'the queue is full: an address with most passwords is refused')
    const other = ask('other', 'z', 'h')
    t.equal(started.at(-1), 'other', 'a hash of another kind does not wait')
    running.at(-1)!(true)
    t.equal(await other, true)
    running[59]!(false)
    await eventually(() => started.at(-1) === 'user', 'the user comes next')
    running.at(-1)!(true)
    t.equal(await user, true)
    await passwords.close()
    for (const end of running) end(false)
    await Promise.all([...round, ...second, ...third])
  }
)

t.test('clients take turns, and one with many passwords keeps no other client out', async (t) => {
  const { passwords, running, started, ask } = passwordQueue()
  for (const client of ['a0', 'a1']) void ask(`${client} runs`, client)
  const many = Array.from({ length: 8 }, (_, client) =>
    Array.from({ length: 8 }, (_, index) => ask(`a${client} ${index}`, `a${client}`))
  )
  const late = ask('late', 'z')
  t.equal(await many[0]!.at(-1), 'JW_AUTH_BUSY excess', 'the newest of a client with most of them is refused')
  for (let index = 0; index < 7; index++) {
    running[index]!(false)
    await eventually(() => running.length === index + 3)
  }
  t.same(
    started.slice(2),
    [...Array.from({ length: 6 }, (_, client) => `a${client + 2} 0`), 'late'],
    'first those for whom none was hashed'
  )
  running[8]!(true)
  t.equal(await late, true)
  passwords.close()
  for (const end of running) end(false)
})

t.test('where each client has one password waiting, one more is refused without blame', async (t) => {
  const { passwords, running, ask } = passwordQueue()
  const others = Array.from({ length: 66 }, (_, client) => ask(`p${client}`, `c${client}`))
  t.equal(await ask('late', 'z'), 'JW_AUTH_BUSY')
  passwords.close()
  for (const end of running) end(false)
  await Promise.all(others)
})

t.test('hashes of other programs', async (t) => {
  // passlib's and the reference implementation's.
  const scrypt = '$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E'
  t.ok(await isPasswordOf(scrypt, 'password'))
  t.notOk(await isPasswordOf(scrypt, 'Password'))
  const argon2 = '$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4'
  t.ok(await isPasswordOf(argon2, 'password'))
  const made = await hashOf('p')
  t.match(made, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
  t.equal(hashFault(made), null)
  t.ok(await isPasswordOf(made, 'p'))
  const digest = 'nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E'
  t.match(hashFault(`$scrypt$ln=18,r=8,p=1$aM15713r3Xs$${digest}`), /more than 128 MB/)
  t.match(hashFault(`$argon2id$v=19$m=1000000,t=2,p=1$aM15713r3Xs$${digest}`), /more than 128 MB/)
  t.match(hashFault(`$argon2id$v=19$ln=16,r=8,p=1$aM15713r3Xs$${digest}`), /expected argon2id with m/)
})

// Of crypt_blowfish, of libxcrypt, and of passlib.
const bcryptHashes = [
  ['$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW', 'U*U'],
  ['$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK', 'U*U*'],
  ['$2y$05$abcdefghijklmnopqrstuucAlS3LCZL9LcVSWwMtNJG6yF5tEYLy2', 'p\u00e4ss w\u00f6rd'],
  ['$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy', null]
] as const

t.test('bcrypt hashes are verified in a thread, which ends with its owner', async (t) => {
  const passwords = new Passwords()
  t.teardown(() => passwords.close())
  const verify = (hash: string, password: string) =>
    Promise.resolve(passwords.isPasswordOf({ username: 'u', hash, password }, 'a'))
  const threads = () => process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length
  const before = threads()
  for (const [hash, password] of bcryptHashes) {
    t.equal(hashFault(hash), null, hash)
    if (password !== null) t.ok(await verify(hash, password), hash)
    t.notOk(await verify(hash, 'wrong'), hash)
  }
  const slow = '$2b$13$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy'
  let isDone = false
  let iterations = 0
  const iterate = () => {
    iterations++
    if (!isDone) setImmediate(iterate)
  }
  iterate()
  t.notOk(await verify(slow, 'wrong'))
  isDone = true
  t.ok(iterations > 1000, 'the event loop goes on')
  t.equal(threads(), before + 1)
  const cut = verify(slow, 'another')
  await Promise.all([passwords.close(), t.rejects(cut, /shutting down/)])
  t.equal(threads(), before)
})

t.test('a consumer with a bcrypt hash logs in', async (t) => {
  const [[hash], , [umlauts]] = bcryptHashes
  const consumers = [
    { name: 'u', basicAuth: { username: 'u', hash } },
    { name: 'p', basicAuth: { username: 'p', hash: umlauts } },
    bob
  ]
  const { outcome } = await gatewayWith(t, { consumers })
  const tried = ['u:U*U', 'p:p\u00e4ss w\u00f6rd', 'u:U*U*', 'nobody:U*U', 'bob:b', 'p:']
  const outcomes = await Promise.all(tried.map((text) => outcome(basic(text)).then(([status]) => status)))
  t.same(outcomes, [200, 200, 401, 401, 200, 401])
  t.same(await outcome(basic('u:U*U')), [200, 'u'], 'from the cache')
})

t.test('bcrypt hashes that cannot be used are faults', (t) => {
  const digest = 'CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'
  t.match(hashFault(`$2a$15$${digest}`), /cost of 4 to 14/)
  t.match(hashFault(`$2a$03$${digest}`), /cost of 4 to 14/)
  t.match(hashFault(`$2a$05$${digest.slice(0, -1)}X`), /mistyped or cut/)
  t.match(hashFault(`$2a$05$${digest.replace('.E', 'CE')}`), /mistyped or cut/)
  t.end()
})

t.test('a plain password and a hash of another kind are faults that do not show it', async (t) => {
  for (const hash of [
    'hunter2',
    '$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/',
    '$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'
  ]) {
    try {
      configOf({ consumers: [{ name: 'a', basicAuth: { username: 'a', hash } }] })
      t.fail('no fault')
    } catch (error) {
      t.match((error as Error).message, /basicAuth\.hash: expected a hash of argon2id or scrypt/)
      t.notOk((error as Error).message.includes(hash))
    }
  }
})
