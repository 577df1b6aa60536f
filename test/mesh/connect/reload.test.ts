/** Certificates that change at run time: new connections use them, and no call fails. */
import { copyFileSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { filesTiming } from '../../../plugins/mesh/connect/tls-files.ts'
import { Stores } from '../../../plugins/stores.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meterStub } from '../../helpers/mesh/mesh.ts'
import { call, calling, logged, secure } from './support.ts'

filesTiming.interval = 20

const reloads = (outcome: string) => `jingwei_mesh_certificate_reloads_total{orders,${outcome}}`

/** A service that requires client certificates, and the files of a mesh that calls it. */
async function scene(t: Test) {
  const folder = folderFor(t)
  const made = folderFor(t)
  const ours = authority(made, 'ours')
  const first = ours.issue('first')
  const second = ours.issue('second')
  const file = (name: string) => join(folder, name)
  const tls = { ca: file('ca.pem'), cert: file('cert.pem'), key: file('key.pem') }
  const put = (from: string, to: string) => {
    copyFileSync(from, `${to}.new`)
    renameSync(`${to}.new`, to)
  }
  put(ours.file, tls.ca)
  put(first.certFile, tls.cert)
  put(first.keyFile, tls.key)
  const good = ours.issue('server', { san: 'IP:127.0.0.1' })
  const peer = await secure(t, { ...good, ca: ours.cert, requestCert: true })
  const { log, of } = logged()
  const { meter, counts, gauges } = meterStub()
  const open = () => calling(t, peer.url, tls, { log, meter })
  return { folder, made, ours, first, second, tls, put, ...peer, log, of, meter, counts, gauges, open }
}

t.test('a new client certificate is used after a rename, and no call fails', async (t) => {
  const { second, tls, put, handshakes, counts, gauges, open, server, of } = await scene(t)
  const mesh = open()
  const failed: string[] = []
  let going = true
  const load = async () => {
    while (going) {
      const body = await call(mesh)
      if (body !== 'hello') failed.push(body)
      await sleep(1)
    }
  }
  const workers = [load(), load(), load()]
  await sleep(50)
  const expiry = () => gauges.jingwei_mesh_certificate_expiry_timestamp_seconds!()
  const [[labels, before] = [{}, 0]] = expiry()
  t.same(labels, { service: 'orders' })
  t.ok(before > Date.now() / 1000 && before < Date.now() / 1000 + 3 * 86_400)
  const [[from, since] = [{}, 0]] = gauges.jingwei_mesh_certificate_not_before_timestamp_seconds!()
  t.same(from, { service: 'orders' })
  t.equal(before - since, 2 * 86_400, 'lifetime of the certificate')
  put(second.certFile, tls.cert)
  put(second.keyFile, tls.key)
  await eventually(() => counts[reloads('success')] === 1, 'the new certificate')
  t.ok(handshakes.length > 0)
  const old = handshakes.length
  await sleep(50)
  t.equal(handshakes.length, old, 'open connections continue')
  server.closeIdleConnections()
  await eventually(() => handshakes.at(-1)!.client === 'second', 'a connection with the new certificate')
  going = false
  await Promise.all(workers)
  // A call may race with the server closing an idle connection; the reload itself must not fail calls.
  t.same(
    failed.filter((code) => code !== 'JW_UPSTREAM_RESET'),
    []
  )
  t.equal(of('error').length, 0)
})

t.test('with an invalid file, the old certificate stays in use, and the fault is logged once', async (t) => {
  const { second, tls, put, server, handshakes, counts, open, of } = await scene(t)
  const mesh = open()
  t.equal(await call(mesh), 'hello')
  writeFileSync(tls.cert, 'no certificate')
  await eventually(() => of('error').length > 0, 'the log line of the invalid file')
  await sleep(150)
  t.equal(of('error').length, 1)
  t.match(of('error')[0]!.fields, { err: { message: /cert contains no certificate/ } })
  t.equal(counts[reloads('failure')], 1)
  t.match(mesh.status()[0]!.concerns.transport, { mode: 'direct', error: /no certificate/ })
  const again = async () => {
    server.closeAllConnections()
    return call(mesh).then((said) => (said === 'hello' ? said : call(mesh)))
  }
  t.equal(await again(), 'hello')
  t.equal(handshakes.at(-1)!.client, 'first')

  put(second.certFile, tls.cert)
  await eventually(() => of('error').length === 2, 'the key is still that of the first')
  t.match(of('error')[1]!.fields, { err: { message: /does not belong to the certificate/ } })
  put(second.keyFile, tls.key)
  await eventually(() => counts[reloads('success')] === 1, 'mended')
  t.equal(await again(), 'hello')
  t.equal(handshakes.at(-1)!.client, 'second')
  t.match(mesh.status()[0]!.concerns.transport, { error: null })

  rmSync(tls.key)
  await eventually(() => of('error').length === 3, 'the log line of the missing file')
  t.equal(await again(), 'hello')
  copyFileSync(second.keyFile, tls.key)
  await sleep(100)
  t.equal(counts[reloads('success')], 1, 'valid again with the same content: no change')
  t.match(mesh.status()[0]!.concerns.transport, { error: null })
  utimesSync(tls.ca, new Date(), new Date())
  await sleep(100)
  t.equal(counts[reloads('success')], 1, 'a change of the mtime alone is no reload')
})

t.test('a replaced folder link of a Kubernetes secret reloads all files', async (t) => {
  const { folder, ours, first, second, url, handshakes, server } = await scene(t)
  const lay = (name: string, own: typeof first) => {
    mkdirSync(join(folder, name))
    copyFileSync(ours.file, join(folder, name, 'ca.crt'))
    copyFileSync(own.certFile, join(folder, name, 'tls.crt'))
    copyFileSync(own.keyFile, join(folder, name, 'tls.key'))
  }
  lay('..1', first)
  symlinkSync('..1', join(folder, '..data'))
  for (const file of ['ca.crt', 'tls.crt', 'tls.key']) symlinkSync(`..data/${file}`, join(folder, file))
  const path = (file: string) => join(folder, file)
  const { meter, counts } = meterStub()
  const mesh = calling(t, url, { ca: path('ca.crt'), cert: path('tls.crt'), key: path('tls.key') }, { meter })
  t.equal(await call(mesh), 'hello')
  lay('..2', second)
  symlinkSync('..2', join(folder, '..next'))
  renameSync(join(folder, '..next'), join(folder, '..data'))
  rmSync(join(folder, '..1'), { recursive: true })
  await eventually(() => counts[reloads('success')] === 1, 'the reload after the swapped link')
  server.closeAllConnections()
  await call(mesh)
  t.equal(await call(mesh), 'hello')
  t.equal(handshakes.at(-1)!.client, 'second')
})

t.test('an authority that is no longer trusted gets no new connection, not even a resumed one', async (t) => {
  const { made, tls, put, open, server, counts } = await scene(t)
  const mesh = open()
  t.equal(await call(mesh), 'hello')
  const theirs = authority(made, 'theirs')
  put(theirs.file, tls.ca)
  await eventually(() => counts[reloads('success')] === 1, 'the reload of the authority')
  server.closeAllConnections()
  await call(mesh)
  t.equal(await call(mesh), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('closing the former service does not stop watching the files of its replacement', async (t) => {
  const { second, tls, put, url, counts, log, meter } = await scene(t)
  const stores = new Stores()
  const [before, after] = [stores.open(log), stores.open(log)]
  calling(t, url, undefined, { log, meter, claims: before })
  const mesh = calling(t, url, tls, { log, meter, claims: after })
  t.teardown(() => after.release())
  await before.release()
  t.equal(await call(mesh), 'hello')
  put(second.certFile, tls.cert)
  put(second.keyFile, tls.key)
  await eventually(() => counts[reloads('success')] === 1, 'the reload of the certificate')
})

t.test('no file is read after close()', async (t) => {
  const { TlsFiles } = await import('../../../plugins/mesh/connect/tls-files.ts')
  const { tls, put, second } = await scene(t)
  let reloaded = 0
  const files = new TlsFiles({ ...tls, minVersion: 'TLSv1.2' }, logged().log, () => reloaded++)
  files.start()
  files.close()
  put(second.certFile, tls.cert)
  put(second.keyFile, tls.key)
  await sleep(150)
  t.equal(reloaded, 0)
})
