/** The conditions of `edge.mtlsAuth.allow`. */
import { expressionFault, expressionOf } from '../../../../config/expressions.ts'
import { linearRegExp } from '../../../../config/linear-regexp.ts'
import type { ClientCertificate } from '../../protocol/tls/client-certificate.ts'
import type { CertificateNames, Kind } from './names.ts'
import { canonical, writtenDn } from './names.ts'

/** Conditions of one entry; values by kind. */
export type Condition = Readonly<Partial<Record<Kind | 'issuer', string | readonly string[]>>>

/** Returns the fault of a value; null if there is none. */
export function conditionFault(key: Kind | 'issuer', text: string): string | null {
  // A certificate may have a DNS name with a wildcard.
  const fault = /^\*\.[^*]+$/.test(text) ? null : expressionFault(text)
  if (fault !== null || expressionOf(text) !== null) return fault
  const isDn = key === 'subject' || key === 'issuer'
  if (isDn && /=\s*\*\s*([,+]|$)/.test(text))
    return 'a name has no wildcards; write an expression /^…$/ for the whole name'
  return isDn && writtenDn(text).length === 0 ? 'expected a name such as CN=alice, O=Example, or /^…$/' : null
}

type Test = (certificate: ClientCertificate, names: CertificateNames) => boolean

function testOf(key: Kind | 'issuer', text: string): Test {
  const expression = expressionOf(text)
  const fits = expression === null ? null : linearRegExp(expression)
  if (key === 'subject' || key === 'issuer') {
    // Expressions are for people: they read the name as `request.clientCertificate` shows it.
    if (fits !== null) return (certificate) => fits(certificate[key])
    const written = writtenDn(text)
    return (_certificate, names) => {
      const own = key === 'issuer' ? [names.issuer] : names.of.subject
      return own.some((name) => written.includes(name))
    }
  }
  const wanted = canonical(key, text)
  return (_certificate, names) => names.of[key].some(fits ?? ((name) => name === wanted))
}

/** Returns the test whether a certificate fulfils one condition of a list. */
export function allowTest(conditions: readonly Condition[]): Test {
  const tests = conditions.map((condition) =>
    Object.entries(condition).map(([key, values]) =>
      [values].flat().map((text) => testOf(key as Kind | 'issuer', text as string))
    )
  )
  return (certificate, names) =>
    tests.some((keys) => keys.every((values) => values.some((test) => test(certificate, names))))
}
