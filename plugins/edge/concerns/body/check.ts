/** The checks of `edge.body`. */
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { mediaTypeDoubt } from '../../../../config/media-types.ts'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { checkParams, checkTemplate, routesWith } from '../../templates/check.ts'
import { isIdentity, needsFact, sourcesIn } from '../../templates/source.ts'
import { moveBetween } from './edits.ts'
import { warnOfIdleRules } from './idle-rules.ts'
import type { BodyOptions, BodyRule } from './options.ts'
import { directions, largestSize, rulesOf, textsIn, valued } from './options.ts'

type Direction = (typeof directions)[number]

/** Returns whether rules have a template that needs a fact. They may be malformed: facts are checked beside the schema. */
const usesFact =
  (fact: 'claims' | 'consumer') =>
  (rules: unknown): boolean =>
    [rules]
      .flat()
      .some((rule) =>
        valued.some((operation) => textsIn(Reflect.get(Object(rule), operation)).some((text) => needsFact(text, fact)))
      )

export const needs = directions.flatMap((option) =>
  (['claims', 'consumer'] as const).map((fact) => ({ fact, option, value: usesFact(fact) }))
)

export function checkBody(options: BodyOptions, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.usable(at)) return
  if (options.request === undefined && options.response === undefined) {
    report.fault(at, 'changes nothing: write "request" or "response"')
  }
  const size = pointer(at, 'maxSize')
  if (report.sound(size) && options.maxSize > largestSize) {
    report.fault(size, 'is more than 16mb: changing a body of this size would block all other requests')
  }
  for (const direction of directions) {
    for (const [rule, below] of rulesOf(options[direction])) {
      const place = `${pointer(at, direction)}${below}`
      if (report.usable(place)) checkRule(rule, place, direction, checked)
    }
  }
}

function checkRule(rule: BodyRule, at: string, direction: Direction, checked: Checked): void {
  const { report } = checked
  const { only = [], remove = [], rename = {} } = rule
  const isEmpty = ['only', 'remove', 'rename', ...valued].every((key) => Reflect.get(rule, key) === undefined)
  if (isEmpty) report.fault(at, 'changes nothing: write "only", "remove", "rename", "set" or "add"')
  checkResponses(rule, at, report)
  checkList(only, pointer(at, 'only'), 'keeps', checked)
  checkList(remove, pointer(at, 'remove'), 'removes', checked)
  checkRenames(rename, pointer(at, 'rename'), checked)
  if (report.sound(at)) warnOfIdleRules(rule, at, report)
  for (const operation of valued) {
    for (const [text, value] of Object.entries(rule[operation] ?? {})) {
      const place = pointer(at, operation, text)
      if (!report.usable(place)) continue
      const fault = pointerFault(text, operation === 'set')
      if (fault !== null) report.fault(place, fault, 'key')
      checkValue(value, place, direction, checked)
      const isForgeable =
        direction === 'request' && operation === 'add' && textsIn(value).flatMap(sourcesIn).some(isIdentity)
      if (isForgeable) {
        const what = `clients could send a value at "${text}" themselves`
        report.fault(place, `${what}; write it under "set", which replaces it`, 'key')
      }
    }
  }
}

const withoutBody: readonly unknown[] = [204, 205, 304]

/** Reports types and statuses of bodies that do not exist. */
function checkResponses({ types, statuses = [] }: BodyRule, at: string, report: Checked['report']): void {
  for (const [index, status] of report.sound(`${at}/statuses`) ? statuses.entries() : []) {
    if (!withoutBody.includes(status)) continue
    report.fault(pointer(at, 'statuses', index), `responses with status ${status} have no body`)
  }
  for (const [index, type] of report.sound(`${at}/types`) ? types.entries() : []) {
    const doubt = mediaTypeDoubt(type)
    if (doubt !== null) report.warn(pointer(at, 'types', index), doubt)
  }
}

const syntax = /^(?:\/(?:[^~/]|~[01])*)*$/

/** Returns why a text cannot be the pointer of a rule; null if it can. */
function pointerFault(text: string, canBeWhole: boolean): string | null {
  if (!syntax.test(text)) {
    const advice = text.startsWith('/') ? '"~" is written "~0"' : `write "/${text.replaceAll('.', '/')}"`
    return `"${text}" is not a JSON pointer; ${advice}`
  }
  return text === '' && !canBeWhole ? 'name a member; the whole body is there already' : null
}

/** Returns whether a pointer is that of a value within the value at another one. */
const isWithin = (inner: string, outer: string): boolean => inner.startsWith(`${outer}/`)

function checkList(list: readonly string[], at: string, does: string, { report }: Checked): void {
  list.forEach((text, index) => {
    const place = pointer(at, index)
    if (!report.sound(place)) return
    const whole = list.find(
      (other, each) => (each !== index && isWithin(text, other)) || (each < index && text === other)
    )
    if (whole !== undefined) report.fault(place, `"${whole}" ${does} it already`)
  })
}

function checkRenames(rename: Readonly<Record<string, string>>, at: string, { report }: Checked): void {
  const entries = Object.entries(rename)
  for (const [from, to] of entries) {
    const place = pointer(at, from)
    if (!report.sound(place)) continue
    const fault = pointerFault(from, true) ?? moveFault(from, to) ?? clash(from, to, entries)
    if (fault !== null) report.fault(place, fault, 'key')
  }
}

function moveFault(from: string, to: string): string | null {
  if (from === to) return 'changes nothing: both pointers are the same'
  try {
    moveBetween(from, to)
    return null
  } catch (error) {
    return (error as Error).message
  }
}

/** Returns why a move cannot be made together with others; null if it can. */
function clash(from: string, to: string, all: readonly (readonly [string, string])[]): string | null {
  for (const [otherFrom, otherTo] of all) {
    if (otherFrom === from) continue
    if (isWithin(from, otherFrom)) return `"${otherFrom}" moves it already; write a list of rules, one after another`
    if (to === otherTo || isWithin(to, otherTo) || isWithin(otherTo, to)) {
      return `"${otherFrom}" is moved to "${otherTo}", so one replaces the other; write a list of rules`
    }
  }
  return null
}

/** Checks a value with all texts in it. */
function checkValue(value: unknown, at: string, direction: Direction, checked: Checked): void {
  const { report } = checked
  if (typeof value === 'string') checkTemplate(at, value, direction === 'response', () => null, checked)
  else if (typeof value === 'number') {
    if (!Number.isFinite(value)) report.fault(at, 'JSON has no such number')
    else if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
      report.fault(at, 'has more digits than a number of the configuration keeps; write it as a text')
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, inner] of Object.entries(value)) checkValue(inner, pointer(at, name), direction, checked)
  }
}

/** Checks the parameters of paths in templates, for routes with options of their own. */
export function* checkRoutes(checked: Checked): Generator<void> {
  for (const { at, options, route } of routesWith<BodyOptions>('body', checked)) {
    yield
    for (const direction of directions) {
      for (const [rule, below] of rulesOf(options[direction])) {
        for (const operation of valued) {
          for (const [text, value] of Object.entries(rule[operation] ?? {})) {
            const place = pointer(`${at}/${direction}${below}`, operation, text)
            for (const each of textsIn(value)) checkParams(place, each, route, checked)
          }
        }
      }
    }
  }
  checkPlaces(checked)
}

/** Reports rules that can never apply to a route. */
function checkPlaces({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const reported = new Set<string>()
  for (const [index, route] of data.routes.entries()) {
    const at = pointer('/routes', index)
    if (!report.usable(at) || !report.usable(`${at}/edge`)) continue
    const own: EdgePolicy = route.edge ?? {}
    const { body, responsePath }: EdgePolicy = { ...data.edge, ...own }
    const place = own.body === undefined ? '/edge/body' : `${at}/edge/body`
    if (!body || !report.sound(place)) continue
    const isOff = body.response !== undefined && responsePath === 'raw'
    const key = own.responsePath === undefined ? '/edge/responsePath' : `${at}/edge/responsePath`
    if (isOff && !reported.has(key)) {
      reported.add(key)
      report.fault(key, 'edge.body.response changes no response on the raw path; write auto')
    }
    const methods = route.match?.methods
    if (own.body === undefined || body.request === undefined || methods === undefined) continue
    if (methods.every((method) => method === 'GET' || method === 'HEAD')) {
      report.warn(`${place}/request`, 'the route takes GET and HEAD only, whose requests have no bodies', 'key')
    }
  }
}
