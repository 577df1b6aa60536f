/** Checks of templates in the configuration. */
import type { Checked } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { forwardingHeaders } from '../../../config/header-names.ts'
import { didYouMean } from '../../../config/nearest.ts'
import { paramNames, pathPatterns } from '../../../config/path-pattern.ts'
import type { WrittenRoute } from '../../../config/schema.ts'
import { referencesOf, templateFault } from '../../../config/template.ts'
import { headerFilter } from '../bridge/upstream-headers.ts'
import type { Template } from './source.ts'
import { parseTemplate, sourcesIn } from './source.ts'

/**
 * Reports the fault of a template. `isResponse`: it may refer to the response. `literalFault` returns the fault of a text that
 * stands in the value as it is; null if it has none.
 */
export function checkTemplate(
  at: string,
  text: string,
  isResponse: boolean,
  literalFault: (text: string) => string | null,
  checked: Checked
): void {
  const { report } = checked
  if (!report.usable(at)) return
  let template: Template
  try {
    template = parseTemplate(text)
  } catch (error) {
    return void report.fault(at, templateFault((error as Error).message, report.at(at)?.from))
  }
  const references = referencesOf(template)
  const literals = [
    ...template.filter((part) => typeof part === 'string'),
    ...references.map((each) => each.substitute ?? '')
  ]
  const fault = literals.map(literalFault).find((each) => each !== null)
  if (fault !== undefined) report.fault(at, fault)
  const early = references.find(({ source }) => source.of === 'response')
  if (early !== undefined && !isResponse) {
    report.fault(at, `there is no response yet for "{${early.text}}"; it can be used in rules for the response`)
  }
  for (const { source } of references) if (source.of === 'headers') warnOfForwarding(at, source.name, checked)
}

/** Warns of a header that is always missing, because no listener trusts proxies for it. */
export function warnOfForwarding(at: string, name: string, { data, report }: Checked): void {
  if (!isForwarding(name) || !report.sound('/listen')) return
  if (
    data.listeners.some(
      ({ trustProxy, trustHeaders }) => trustProxy.length > 0 && trustHeaders.some((each) => each === name)
    )
  )
    return
  report.warn(at, `"${name}" is always missing: no listener trusts a proxy for it (listen.trustProxy, trustHeaders)`)
}

const isForwarding = headerFilter(forwardingHeaders)!

/** Reports references to parameters that no path of the route has. */
export function checkParams(at: string, text: string, route: WrittenRoute, { report }: Checked): void {
  if (!report.sound(at)) return
  const known = pathPatterns(route.match.path).flatMap(paramNames)
  for (const source of sourcesIn(text)) {
    if (source.of !== 'params' || known.includes(source.name)) continue
    report.fault(at, `match.path has no parameter "${source.name}"${didYouMean(source.name, known)}`)
  }
}

/** Returns the routes that set a concern themselves, with their options and the pointers to these, if neither has a fault. */
export function* routesWith<Options>(
  key: string,
  { data, report }: Checked
): Generator<{ readonly at: string; readonly options: Options; readonly route: WrittenRoute }> {
  if (!report.usable('/routes')) return
  for (const [index, route] of data.routes.entries()) {
    const at = pointer('/routes', index, 'edge', key)
    if (!report.usable(pointer('/routes', index, 'edge')) || !report.sound(pointer('/routes', index, 'match'))) continue
    const options: unknown = Reflect.get(route.edge ?? {}, key)
    if (options && report.sound(at)) yield { at, options: options as Options, route }
  }
}
