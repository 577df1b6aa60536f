/** Certificates made for a test by openssl: authorities, and the certificates that they sign. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface Issued {
  cert: string
  key: string
  certFile: string
  keyFile: string
}

export interface IssueOptions {
  /** Subject alternative names in openssl's notation: `DNS:orders.internal,IP:127.0.0.1`. */
  san?: string
  cn?: string
  /** Days of validity; -1: expired yesterday. */
  days?: number
}

export interface Authority {
  cert: string
  file: string
  issue(name: string, options?: IssueOptions): Issued
}

const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })

/** Makes a folder that is removed when the test ends. */
export function folderFor(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-tls-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export function authority(folder: string, name: string): Authority {
  const file = join(folder, `${name}.pem`)
  const keyFile = join(folder, `${name}.key`)
  openssl('req', '-x509', ...key, '-days', '3', '-subj', `/CN=${name}`, '-keyout', keyFile, '-out', file)
  return {
    file,
    cert: readFileSync(file, 'utf8'),
    issue(leaf, { san, cn = leaf, days = 2 } = {}) {
      const path = (end: string) => join(folder, `${name}-${leaf}.${end}`)
      openssl('req', ...key, '-subj', `/CN=${cn}`, '-keyout', path('key'), '-out', path('csr'))
      const extensions = ['basicConstraints=CA:FALSE', ...(san === undefined ? [] : [`subjectAltName=${san}`])]
      writeFileSync(path('ext'), extensions.join('\n'))
      const by = ['-CA', file, '-CAkey', keyFile, '-CAcreateserial', '-extfile', path('ext')]
      openssl('x509', '-req', '-in', path('csr'), ...by, '-days', String(days), '-out', path('pem'))
      return {
        cert: readFileSync(path('pem'), 'utf8'),
        key: readFileSync(path('key'), 'utf8'),
        certFile: path('pem'),
        keyFile: path('key')
      }
    }
  }
}
