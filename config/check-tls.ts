/** Checks `listen.tls` for rules that a schema cannot express: files, keys, names, client certificates. */
import { getCiphers } from 'node:tls'
import type { Steps } from '../plugins/time-slices.ts'
import type { Pair, PairFiles } from './certificates.ts'
import { certificatesIn, certificateWarning, foldersOf, PairError, pairsIn, readPair, readPem } from './certificates.ts'
import { checkTlsHosts } from './check-tls-hosts.ts'
import { checkPem } from './checked.ts'
import type { Checked } from './concern.ts'
import { pointer } from './faults.ts'
import { patternKey, writtenHostKey } from './host-name.ts'
import { didYouMean } from './nearest.ts'
import type { ClientCertificateOptions, TlsOptions } from './schema/tls.ts'
import { ServerNames } from './server-names.ts'

export function* checkTls(at: string, tls: TlsOptions, checked: Checked): Steps<void> {
  const { report } = checked
  const pairs = yield* checkCertificates(at, tls, checked)
  if (tls.minVersion > tls.maxVersion) {
    report.fault(`${at}/minVersion`, `is newer than maxVersion, which is ${tls.maxVersion}`)
  }
  checkCiphers(at, tls, checked)
  checkDefault(at, tls, pairs, checked)
  const rules = checkClients(at, tls, checked)
  if (checked.report.sound(at)) yield* checkTlsHosts(tls, pairs, rules, checked)
}

/** Returns the certificates that can be used. */
function* checkCertificates(at: string, tls: TlsOptions, checked: Checked): Steps<Pair[]> {
  const { report, absolute } = checked
  const { cert, key, certificates, folders } = tls
  const pairs: Pair[] = []
  if (cert !== undefined && key !== undefined) pairs.push(...checkPair(at, { cert, key }, checked))
  else if (cert !== undefined || key !== undefined) report.missing(at, cert === undefined ? 'cert' : 'key')
  else if (certificates.length === 0 && folders.length === 0 && !report.unknownKeyIn(at)) {
    report.fault(at, 'needs a certificate: cert and key, certificates, or folders')
  }
  for (const [index, files] of certificates.entries()) {
    yield
    pairs.push(...checkPair(pointer(at, 'certificates', index), files, checked))
  }
  for (const [index, folder] of folders.entries()) {
    const place = pointer(at, 'folders', index)
    try {
      const found = foldersOf(absolute(folder)).flatMap(pairsIn)
      if (found.length === 0) report.warn(place, `found no certificate with its key in ${absolute(folder)}`)
      for (const files of found) {
        yield
        const pair = usable(files, (part, message) => {
          report.warn(place, `${files[part]} ${message}; the certificate is not served`)
        })
        if (pair === null) continue
        pairs.push(pair)
        warn(place, files, pair, checked)
      }
    } catch (error) {
      report.fault(place, `cannot be read: ${(error as Error).message}`)
    }
  }
  if (pairs.length === 0 && folders.length > 0 && report.sound(at)) {
    report.fault(at, 'no certificate can be used: all handshakes would fail')
  }
  return pairs
}

function usable(files: PairFiles, report: (part: 'cert' | 'key', message: string) => void): Pair | null {
  try {
    return readPair(files)
  } catch (error) {
    if (!(error instanceof PairError)) throw error
    report(error.part, error.message)
    return null
  }
}

/** Checks a pair that the file names; if it cannot be used, that is a fault. Returns the usable pair, or an empty list. */
function checkPair(at: string, written: PairFiles, checked: Checked): Pair[] {
  const { report, absolute } = checked
  for (const part of ['cert', 'key'] as const) checkPem(at, part, written[part], checked)
  if (!report.sound(`${at}/cert`) || !report.sound(`${at}/key`)) return []
  const files = { cert: absolute(written.cert), key: absolute(written.key) }
  const pair = usable(files, (part, message) => report.fault(`${at}/${part}`, `${files[part]} ${message}`))
  if (pair === null) return []
  warn(`${at}/cert`, files, pair, checked)
  return [pair]
}

function warn(at: string, { cert }: PairFiles, { facts }: Pair, { report }: Checked): void {
  const doubt = certificateWarning(facts, Date.now())
  if (doubt !== null) report.warn(at, `${cert}: ${doubt}`)
}

function checkCiphers(at: string, { ciphers, maxVersion }: TlsOptions, { report }: Checked): void {
  const known = getCiphers().map((name) => name.toUpperCase())
  ciphers.forEach((name, index) => {
    if (known.includes(name)) return
    report.fault(pointer(at, 'ciphers', index), `unknown cipher suite${didYouMean(name, known)}`)
  })
  if (maxVersion === 'TLSv1.2' && ciphers.every((name) => name.startsWith('TLS_'))) {
    report.fault(`${at}/ciphers`, 'all of these are for TLS 1.3, and maxVersion is TLSv1.2')
  }
}

function checkDefault(at: string, tls: TlsOptions, pairs: readonly Pair[], { report }: Checked): void {
  if (tls.default === undefined || !report.sound(at)) return
  const place = `${at}/default`
  if (tls.cert !== undefined)
    report.fault(place, 'cannot be set together with cert and key, which are the default certificate')
  else if (tls.strict) report.warn(place, 'no effect: with strict: true the handshakes of these clients fail')
  const names = new ServerNames<Pair>()
  for (const pair of pairs) names.add(pair.facts.names, pair)
  const name = writtenHostKey(tls.default)
  if (name === null || names.find(name) === undefined) report.fault(place, `no certificate has the name ${tls.default}`)
}

/** Checks the rules for client certificates. Returns the pointers of the hosts with their own rules, by `patternKey`. */
function checkClients(at: string, tls: TlsOptions, checked: Checked): Map<string, string> {
  const { report } = checked
  checkAuthorities(`${at}/ca`, tls.ca, checked)
  if (tls.ca !== undefined && tls.clientCertificate !== undefined) {
    report.fault(`${at}/ca`, 'is short for clientCertificate.ca; set only one of the two')
  }
  const ca = tls.ca ?? tls.clientCertificate?.ca
  checkClient(`${at}/clientCertificate`, tls.clientCertificate, ca, checked)
  const seen = new Map<string, string>()
  tls.hosts.forEach(({ names, clientCertificate }, index) => {
    const place = pointer(at, 'hosts', index)
    checkClient(`${place}/clientCertificate`, clientCertificate, clientCertificate.ca ?? ca, checked)
    names.forEach((name, i) => {
      const here = pointer(place, 'names', i)
      const key = patternKey(name)
      const before = key === null ? undefined : seen.get(key)
      if (key === null) report.fault(here, 'is neither a host name nor a wildcard such as *.example.com')
      else if (before !== undefined)
        report.fault(here, `duplicate host ${name}; it is also in ${report.pathOf(before)}`)
      else seen.set(key, here)
    })
  })
  return seen
}

function checkClient(
  at: string,
  options: ClientCertificateOptions | undefined,
  ca: string | undefined,
  checked: Checked
): void {
  if (options === undefined) return
  const { report } = checked
  checkAuthorities(`${at}/ca`, options.ca, checked)
  if (options.mode !== 'none' && ca === undefined && !report.unknownKeyIn(at)) {
    report.fault(at, `mode: ${options.mode} needs a ca, the authorities that sign the client certificates`)
  } else if (options.mode === 'none' && options.ca !== undefined) {
    report.warn(`${at}/ca`, 'no effect: with mode: none no certificate is requested')
  }
}

/** Checks a file of authorities. An empty one would be a list without authorities, and every client would be refused. */
function checkAuthorities(at: string, file: string | undefined, checked: Checked): void {
  const { report, absolute } = checked
  if (file === undefined) return
  checkPem(at.slice(0, -'/ca'.length), 'ca', file, checked)
  if (!report.sound(at)) return
  try {
    certificatesIn(readPem(absolute(file)))
  } catch (error) {
    report.fault(at, `${absolute(file)} ${(error as Error).message}`)
  }
}
