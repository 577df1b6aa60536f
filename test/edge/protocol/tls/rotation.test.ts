// slow: takes about 6 s
/** Certificates that change on disk: later handshakes get the new ones, and open connections continue. */
import { copyFileSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import tls from 'node:tls'
import t from 'tap'
import { tlsFilesTiming } from '../../../../plugins/edge/protocol/tls/certificate-files.ts'
import { authority } from '../../../helpers/certificates.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { startService } from '../../../helpers/gateway.ts'
import { askOver, lay, listening, put, scene, sessionTo, shake } from './support.ts'

tlsFilesTiming.intervalMs = 20

const reloads = (outcome: string) => `jingwei_edge_certificate_reloads_total{listener="default",outcome="${outcome}"}`

t.test('certificates rotate under load over HTTP/1.1 and HTTP/2 without a lost request or connection', async (t) => {
  const { issue, folder, path } = scene(t)
  const generations = Array.from({ length: 6 }, (_, i) => issue(`generation-${i}`, ['a.example', '*.b.example']))
  lay(generations[0]!, folder)
  const gateway = await listening(t, { folders: [folder] })
  const { port, metric } = gateway
  let going = true
  let done = 0
  const failed: unknown[] = []
  const shown = new Set<string | undefined>()
  const count = (status: number) => {
    done++
    if (status !== 200) failed.push(status)
  }
  const note = (error: unknown) => failed.push(error)
  const agent = new https.Agent({ keepAlive: true, maxSockets: 4, rejectUnauthorized: false })
  const get = () =>
    new Promise<number>((resolve, reject) => {
      const request = https.get({ port, host: '127.0.0.1', servername: 'a.example', agent }, (response) => {
        response
          .resume()
          .once('end', () => resolve(response.statusCode!))
          .once('error', reject)
      })
      request.once('error', reject)
    })
  const kept = async () => {
    while (going) await get().then(count, note)
  }
  const session = await sessionTo(t, port, { servername: 'a.example' })
  const streams = async () => {
    while (going) await askOver(session, 'a.example').then(({ status }) => count(status), note)
  }
  const fresh = async () => {
    while (going) {
      const result = await shake(port, { servername: 'x.b.example' }, 'x.b.example')
      shown.add(result.shown)
      count(result.status)
    }
  }
  const standing = tls.connect({ port, host: '127.0.0.1', servername: 'a.example', rejectUnauthorized: false })
  let closed = false
  standing.on('close', () => {
    closed = true
  })
  await new Promise((resolve) => standing.once('secureConnect', resolve))
  const clients = [kept(), kept(), kept(), streams(), streams(), fresh(), fresh()]
  for (const [index, generation] of generations.entries()) {
    if (index === 0) continue
    lay(generation, folder)
    await eventually(() => shown.has(`generation-${index}`), `generation ${index}`)
  }
  going = false
  await Promise.all(clients)
  agent.destroy()
  t.strictSame(failed, [])
  t.ok(done > 100, `${done} requests`)
  t.notOk(closed || session.destroyed, 'open connections continue')
  t.match(await askOver(session, 'a.example'), { status: 200 })
  t.ok((await metric(reloads('success')))! >= 5)
  t.match(
    await metric(
      `jingwei_edge_certificate_expiry_timestamp_seconds{listener="default",certificate="${path('tls.crt')}"}`
    ),
    Number
  )
  standing.destroy()
})

t.test('the default certificate rotates for clients without a server name', async (t) => {
  const { issue, folder, path } = scene(t)
  lay(issue('first'), folder)
  const { port } = await listening(t, { cert: path('tls.crt'), key: path('tls.key') })
  const session = await sessionTo(t, port)
  t.match(await shake(port), { shown: 'first', status: 200 })
  lay(issue('second'), folder)
  await eventually(async () => (await shake(port)).shown === 'second')
  t.match(await askOver(session, 'localhost'), { status: 200 })
})

for (const kind of ['named', 'in a folder'] as const) {
  t.test(`${kind}: an invalid pair leaves the former one in use, and is logged once`, async (t) => {
    const { issue, folder, path } = scene(t)
    lay(issue('first', ['a.example']), folder)
    const second = issue('second', ['a.example'])
    const files = { cert: path('tls.crt'), key: path('tls.key') }
    const { port, log, metric, server } = await listening(t, kind === 'named' ? files : { folders: [folder] })
    const errors = () => log.filter(({ level }) => level === 50)
    const shown = async () => (await shake(port, { servername: 'a.example' })).shown
    const unusable = () => metric('jingwei_edge_certificates_unusable{listener="default"}')

    writeFileSync(files.cert, second.cert.slice(0, 300))
    await eventually(() => errors().length === 1, 'the error of the truncated file')
    await new Promise((resolve) => setTimeout(resolve, 200))
    t.match(errors(), [
      {
        listener: 'default', certificate: files.cert, reason: `${files.cert} ends in the middle of a certificate`,
        msg: 'certificate cannot be used: the previous one stays in use'
      }
    ]) // biome-ignore format: short
    t.equal(await metric(reloads('failure')), 1)
    t.equal(await unusable(), 1)
    t.match(server.certificates(), [{ error: /in the middle/, facts: { subject: 'CN=first' } }])
    t.equal(await shown(), 'first')

    put(second.certFile, files.cert)
    await eventually(() => errors().length === 2, 'the key is still that of the first')
    t.match(errors()[1], { reason: `${files.key} is not the key of the certificate` })
    t.equal(await shown(), 'first')
    put(second.keyFile, files.key)
    await eventually(async () => (await metric(reloads('success'))) === 1, 'mended')
    t.equal(await shown(), 'second')
    t.equal(await unusable(), 0)
    t.match(
      log.filter(({ msg }) => msg === 'certificate loaded; new connections use it'),
      [{ certificate: files.cert, names: ['a.example'], expires: /Z$/ }]
    )

    rmSync(files.key)
    await eventually(() => errors().length === 3, 'the error of the missing key')
    t.equal(await shown(), 'second')
    copyFileSync(second.keyFile, files.key)
    await eventually(async () => (await unusable()) === 0, 'back with the same content')
    utimesSync(files.cert, new Date(), new Date())
    await new Promise((resolve) => setTimeout(resolve, 150))
    t.equal(await metric(reloads('success')), 1, 'an unchanged file is not reloaded')
    t.equal(errors().length, 3)
  })
}

t.test('a replaced link of a Kubernetes secret reloads both files', async (t) => {
  const { issue, path } = scene(t)
  lay(issue('first', ['a.example']), path('..1'))
  symlinkSync('..1', path('..data'))
  for (const name of ['tls.crt', 'tls.key']) symlinkSync(`..data/${name}`, path(name))
  const { port, log } = await listening(t, { folders: [path('.')] })
  t.match(await shake(port, { servername: 'a.example' }), { shown: 'first' })
  lay(issue('second', ['a.example']), path('..2'))
  symlinkSync('..2', path('..next'))
  renameSync(path('..next'), path('..data'))
  rmSync(path('..1'), { recursive: true })
  await eventually(async () => (await shake(port, { servername: 'a.example' })).shown === 'second')
  t.strictSame(
    log.filter(({ level }) => level === 50),
    []
  )
})

t.test('added pairs and folders are served, removed ones are not', async (t) => {
  const { issue, folder, path } = scene(t)
  lay(issue('a.example'), folder, 'a.crt', 'a.key')
  const { port, log } = await listening(t, { folders: [folder], strict: true })
  const shown = async (servername: string) => (await shake(port, { servername })).shown
  t.equal(await shown('b.example'), undefined)
  lay(issue('b.example'), folder, 'b.crt', 'b.key')
  await eventually(async () => (await shown('b.example')) === 'b.example', 'the new pair to be served')
  // As certbot does for a new domain.
  mkdirSync(path('c.example'))
  lay(issue('c.example'), path('c.example'), 'fullchain.pem', 'privkey.pem')
  await eventually(async () => (await shown('c.example')) === 'c.example', 'the new folder to be served')
  rmSync(path('b.crt'))
  rmSync(path('b.key'))
  await eventually(async () => (await shown('b.example')) === undefined, 'the removed pair not to be served')
  rmSync(path('c.example'), { recursive: true })
  await eventually(async () => (await shown('c.example')) === undefined, 'the removed folder not to be served')
  t.match(
    log.filter(({ msg }) => String(msg).startsWith('certificate removed')).map(({ certificate }) => certificate),
    [path('b.crt'), path('c.example/fullchain.pem')]
  )
  t.strictSame(
    log.filter(({ level }) => Number(level) > 30),
    []
  )
  rmSync(path('a.crt'))
  await eventually(() => log.some(({ msg }) => msg === 'no usable certificate is left: the previous ones stay in use'))
  t.equal(await shown('a.example'), 'a.example', 'the last pair is kept')
})

t.test('a folder that cannot be read for a while keeps its certificates', async (t) => {
  const { issue, path } = scene(t)
  lay(issue('a.example'), path('certs'))
  const { port, log } = await listening(t, { folders: [path('certs')] })
  renameSync(path('certs'), path('away'))
  await eventually(() => log.some(({ msg }) => String(msg).startsWith('cannot read')))
  t.match(await shake(port, { servername: 'a.example' }), { shown: 'a.example', status: 200 })
  rmSync(path('away'), { recursive: true })
  lay(issue('again', ['a.example']), path('certs'))
  await eventually(async () => (await shake(port, { servername: 'a.example' })).shown === 'again')
})

t.test('changed client authorities apply to resumed sessions, too', async (t) => {
  const { issue, folder, path } = scene(t)
  const [one, two] = [authority(folder, 'one'), authority(folder, 'two')]
  const [alice, bob] = [one.issue('alice'), two.issue('bob')]
  const main = issue('main')
  put(one.file, path('ca.pem'))
  const gateway = await listening(t, { cert: main.certFile, key: main.keyFile, ca: path('ca.pem') })
  const { port, log, metric, server } = gateway
  const unusable = () => metric('jingwei_edge_certificates_unusable{listener="default"}')
  const reloads = (outcome: string) =>
    metric(`jingwei_edge_certificate_reloads_total{listener="default",outcome="${outcome}"}`)
  const shown = async () =>
    (await server.admin!.inject('/admin/certificates')).json().find(({ use }: { use: string }) => use === 'clients')
  const expiry = `jingwei_edge_certificate_expiry_timestamp_seconds{listener="default",certificate="${path('ca.pem')}"}`
  const expires = async () => new Date((await metric(expiry))! * 1000).toISOString()
  t.match(await shown(), { certificate: path('ca.pem'), subject: 'CN=one', error: null, clientCertificates: [] })
  t.equal(await expires(), (await shown()).notAfter)
  t.equal(await unusable(), 0)
  const as = ({ cert, key }: typeof alice, more: object = {}) => shake(port, { cert, key, servername: 'main', ...more })
  const { session, status } = await as(alice)
  t.equal(status, 200)
  t.equal((await as(bob)).status, 0)
  writeFileSync(path('ca.pem'), '')
  await eventually(() => log.some(({ reason }) => /contains no certificate/.test(String(reason))))
  t.equal((await as(alice)).status, 200, 'an empty file is ignored')
  t.equal(await unusable(), 1)
  t.equal(await reloads('failure'), 1)
  t.match(await shown(), { subject: 'CN=one', error: /contains no certificate/ })
  put(two.file, path('ca.pem'))
  await eventually(async () => (await as(bob)).status === 200)
  t.equal((await as(alice)).status, 0)
  t.match(
    log.filter(({ msg }) => /^authorities of client certificates loaded/.test(String(msg))),
    [{ listener: 'default', path: path('ca.pem'), expires: /^\d{4}-/ }]
  )
  t.equal(await unusable(), 0)
  t.equal(await reloads('success'), 1)
  t.match(await shown(), { subject: 'CN=two', error: null })
  t.match(await as(alice, { session }), { status: 0, reused: false }, 'a session that the old authority admitted')
})

t.test('files are not watched once the gateway has closed', async (t) => {
  const { issue, folder, path } = scene(t)
  lay(issue('first'), folder)
  const service = await startService((_request, response) => response.end())
  t.teardown(service.close)
  const { close, log } = await listening(t, { folders: [folder] })
  await close()
  const before = log.length
  writeFileSync(path('tls.crt'), 'nonsense')
  await new Promise((resolve) => setTimeout(resolve, 150))
  t.equal(log.length, before)
})
