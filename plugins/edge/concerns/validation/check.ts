/** The checks of `edge.validation`. */
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { mediaTypeDoubt } from '../../../../config/media-types.ts'
import { didYouMean } from '../../../../config/nearest.ts'
import { paramNames, pathPatterns } from '../../../../config/path-pattern.ts'
import type { WrittenRoute } from '../../../../config/schema.ts'
import type { Steps } from '../../../time-slices.ts'
import { formatOf, rangePattern } from '../../protocol/media-types.ts'
import { isObject } from '../../strict-json.ts'
import { routesWith } from '../../templates/check.ts'
import { documentOf, documentOptions, keyOf } from './documents.ts'
import type { ValidationOptions } from './options.ts'
import { compileRoute, placeKeys } from './route-schemas.ts'
import { shown } from './schema-messages.ts'
import type { Place } from './sources.ts'
import { valueAt } from './sources.ts'

/** Options that have an effect only for documents. */
const ofDocuments = [
  'basePath',
  'describes',
  'undocumented',
  'unknownQuery',
  'unread',
  'responses',
  'maxResponse'
] as const

/** Options that have an effect only for bodies. */
const ofBodies = ['maxBody', 'maxDepth'] as const

/** Types of JSON Schema that the values of a place never have. */
const otherTypes = new Set(['string', 'number', 'integer', 'boolean', 'array', 'null'])

const isRange = new RegExp(rangePattern)

/** Reports schemas of places that no request, or every request, would match. */
function checkPlaces(options: ValidationOptions, at: string, report: Checked['report']): void {
  for (const key of Object.keys(placeKeys) as (keyof typeof placeKeys)[]) {
    const { type, properties, required } = options[key] ?? {}
    if (typeof type === 'string' && otherTypes.has(type))
      report.fault(`${at}/${key}/type`, `the values of ${key} are one object: write "type: object"`)
    if (key !== 'headers') continue
    const names = [
      ...(isObject(properties) ? Object.keys(properties) : []),
      ...(Array.isArray(required) ? required : [])
    ]
    const wrong: unknown = names.find((name) => typeof name === 'string' && name !== name.toLowerCase())
    if (typeof wrong === 'string') {
      report.fault(`${at}/${key}`, `"${wrong}": write names of headers in lower case, ${wrong.toLowerCase()}`)
    }
  }
}

export function checkValidation(options: ValidationOptions, at: string, { report, absolute }: Checked): void {
  const keys = [...Object.keys(placeKeys), 'body'] as ('query' | 'body')[]
  if ([...keys, 'openapi'].some((key) => !report.usable(`${at}/${key}`))) return
  const written = keys.filter((key) => options[key] !== undefined)
  if (options.openapi !== undefined) {
    for (const key of written)
      report.fault(`${at}/${key}`, 'has no effect with "openapi": write it in the document', 'key')
    if (options.responses === false && report.at(`${at}/maxResponse`) !== undefined) {
      report.fault(`${at}/maxResponse`, 'has no effect without "responses"', 'key')
    }
    return
  }
  if (written.length === 0) {
    report.fault(at, 'has nothing to check: write openapi, query, path, headers, cookies or body')
    return
  }
  for (const key of ofDocuments) {
    if (report.at(`${at}/${key}`) !== undefined) report.fault(`${at}/${key}`, 'has no effect without "openapi"', 'key')
  }
  checkPlaces(options, at, report)
  const { body } = options
  for (const key of body === undefined ? ofBodies : []) {
    if (report.at(`${at}/${key}`) !== undefined) report.fault(`${at}/${key}`, 'has no effect without "body"', 'key')
  }
  if (body !== undefined) {
    if (!report.usable(`${at}/body/content`)) return
    for (const [range, schema] of Object.entries(body.content)) {
      if (!isRange.test(range)) {
        report.fault(`${at}/body/content`, `"${range}" is not a media type such as application/json or text/*`, 'key')
        return
      }
      const doubt = mediaTypeDoubt(range)
      if (doubt !== null) report.warn(pointer(at, 'body', 'content', range), doubt, 'key')
      const isRead = formatOf(range.toLowerCase()) !== null || range.includes('*')
      if (schema !== true && !isRead && doubt === null)
        report.warn(
          `${at}/body/content`,
          `"${range}": bodies of this type are not read: write true in place of a schema`
        )
      if (schema !== true && (typeof schema !== 'object' || schema === null)) {
        report.fault(`${at}/body/content`, `"${range}": expected a JSON Schema, or true for any body of this type`)
        return
      }
    }
  }
  const file = absolute('config')
  compileRoute(options, file, (key, { place, message, severity }) => {
    // A fault in another file has its place there.
    const isHere = place.source.file === file
    const where = isHere ? `${at}/${key}${place.pointer}` : `${at}/${key}`
    const text = isHere
      ? withoutVariables(message, place, report.at(where)?.from)
      : `${place.source.file}#${place.pointer}: ${message}`
    if (severity === 'hint') report.warn(where, `${text}; the keyword is not checked`)
    else report.fault(where, text)
  })
}

/** Reports names in the schema of `path` that no path has. One that the schema requires would refuse every request. */
function* checkParams(checked: Checked): Steps<void> {
  const { data, report } = checked
  if (!report.sound('/routes')) return
  const paramsOf = ({ match }: WrittenRoute) => pathPatterns(match.path).flatMap(paramNames)
  const known = (routes: readonly WrittenRoute[]) => new Set(routes.flatMap(paramsOf))
  // Routes of a group share its schema, which may have the parameters of all of them.
  const groups = Map.groupBy(data.routes.filter(isGrouped), ({ group }) => group)
  const ofGroups = new Map([...groups].map(([group, routes]) => [group, known(routes)]))
  for (const { at, options, route } of routesWith<ValidationOptions>('validation', checked)) {
    yield
    if (options.path === undefined) continue
    const own = known([route])
    const shared = (route.group === undefined ? undefined : ofGroups.get(route.group)) ?? own
    for (const [place, name, isRequired] of namesIn(options.path, `${at}/path`)) {
      const all = isRequired ? own : shared
      if (all.has(name)) continue
      report.fault(place, `match.path has no parameter "${name}"${didYouMean(name, all)}`, 'key')
    }
  }
  const { validation } = data.edge as { validation?: ValidationOptions | false }
  // Routes of plugins have paths of their own.
  if (!validation || !report.sound('/edge/validation') || data.plugins.length > 0) return
  const any = known(data.routes.filter(({ edge }) => edge?.validation === undefined))
  for (const [place, name] of namesIn(validation.path, '/edge/validation/path')) {
    if (any.has(name)) continue
    report.warn(place, `no route has "${name}" in its match.path${didYouMean(name, any)}`, 'key')
  }
}

const isGrouped = (route: WrittenRoute): route is WrittenRoute & { readonly group: string } => route.group !== undefined

type Name = readonly [place: string, name: string, isRequired: boolean]

/** Returns the names that a schema of parameters has, with their places. */
function namesIn({ properties, required }: ValidationOptions['path'] = {}, at: string): Name[] {
  const own = isObject(properties) ? Object.keys(properties) : []
  const needed = Array.isArray(required) ? required : []
  return [
    ...own.map((name): Name => [pointer(at, 'properties', name), name, false]),
    ...needed.map((name, index): Name => [pointer(at, 'required', index), String(name), true])
  ]
}

/** Checks the parameters of paths, then the documents of all routes. */
export function* checkRoutes(checked: Checked): Steps<void> {
  yield* checkParams(checked)
  yield* checkDocuments(checked)
}

/** Returns a message with the written text in place of a value from the environment, which may be a secret. */
function withoutVariables(message: string, place: Place, written: string | undefined): string {
  if (written === undefined) return message
  const value = valueAt(place)
  return [JSON.stringify(value), shown(value)].reduce(
    (text, own) => text.replaceAll(own, () => shown(written)),
    message
  )
}

/** Most faults of one document that are reported. */
const mostFaults = 20

/** Checks the documents of all routes, each once. Yields often, since compiling a large one takes a second. */
function* checkDocuments({ data, report, absolute }: Checked): Steps<void> {
  const done = new Set<string>()
  const routes = report.usable('/routes') ? data.routes : []
  const sections = [
    ['/edge', data.edge],
    ...routes.map((route, index) => [pointer('/routes', index, 'edge'), route?.edge] as const)
  ] as const
  for (const [section, edge] of sections) {
    const at = `${section}/validation`
    if (edge === undefined || ![section, at, `${at}/openapi`].every((each) => report.usable(each))) continue
    const { validation } = edge as { validation?: ValidationOptions | false }
    if (typeof validation !== 'object' || validation.openapi === undefined) continue
    const options = documentOptions({ ...validation, openapi: absolute(validation.openapi) })
    const key = keyOf(options)
    if (done.has(key)) continue
    done.add(key)
    let faults = 0
    try {
      const { count } = yield* documentOf(options, ({ place, message, severity }) => {
        if (++faults > mostFaults) return
        const text = `${place.source.file}#${place.pointer}: ${message}`
        if (severity !== 'fault') report.warn(`${at}/openapi`, `${text}; the keyword is not checked`)
        else report.fault(`${at}/openapi`, text)
      })
      if (count === 0 && faults === 0) report.fault(`${at}/openapi`, `${options.openapi}: has no operations`)
    } catch (error) {
      report.fault(`${at}/openapi`, (error as Error).message)
    }
  }
}
