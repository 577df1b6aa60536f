/** Functions that several checks use. */
import type { Stats } from 'node:fs'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { didYouMean } from './nearest.ts'

/** Returns the stats of a path; null if nothing exists there, also for impossible paths (with a NUL, or too long). */
function stateOf(path: string): Stats | null {
  try {
    return statSync(path)
  } catch {
    return null
  }
}

/** Checks that the file exists which the value at a pointer names. */
export function checkFile(at: string, path: string | undefined, { report, absolute }: Checked): void {
  if (path === undefined || !report.sound(at)) return
  const file = absolute(path)
  if (!stateOf(file)?.isFile())
    report.fault(at, `no such file: ${file}${didYouMean(basename(file), namesIn(dirname(file)))}`)
}

/** Checks that a PEM file exists and that certificate and key are not swapped. Its contents are validated later. */
export function checkPem(at: string, kind: 'ca' | 'cert' | 'key', path: string | undefined, checked: Checked): void {
  const place = `${at}/${kind}`
  checkFile(place, path, checked)
  const { report, absolute } = checked
  if (path === undefined || !report.sound(place)) return
  const file = absolute(path)
  try {
    const text = readFileSync(file, 'latin1')
    const [isCertificate, isKey] = [text.includes('CERTIFICATE-----'), text.includes('PRIVATE KEY-----')]
    if (kind === 'key' && isCertificate && !isKey)
      report.fault(place, `expected a private key, found a certificate: ${file}`)
    else if (kind !== 'key' && isKey && !isCertificate)
      report.fault(place, `expected a certificate, found a private key: ${file}`)
  } catch (error) {
    report.fault(place, `cannot be read: ${(error as Error).message}`)
  }
}

/** Returns whether a path is that of a folder. */
export const isFolder = (path: string): boolean => stateOf(path)?.isDirectory() === true

/** Returns the names in a folder; none if it does not exist. */
export function namesIn(folder: string): string[] {
  return isFolder(folder) ? readdirSync(folder) : []
}

/** Checks that user and password of a URL can be decoded. */
export function checkUserinfo(at: string, text: string, report: Report): void {
  if (!report.sound(at)) return
  const { username, password } = new URL(text)
  try {
    for (const part of [username, password]) decodeURIComponent(part)
  } catch {
    report.fault(at, 'user and password of a URL are percent-encoded: write "%" as "%25"')
  }
}
