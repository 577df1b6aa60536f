/** A composed route, compiled when the configuration loads: calls in the order of their references, and the response. */
import { hash } from 'node:crypto'
import { referencesIn } from '../../config/compose/order.ts'
import { placeOf } from '../../config/compose/parts.ts'
import { membersOf } from '../../config/json-pointer.ts'
import type { ComposeConfig } from '../../config/schema/compose.ts'
import type { RouteConfig, RouteTarget } from '../../config/schema.ts'
import { BadInput } from './errors.ts'
import { compileReshaping } from './reshape.ts'
import { compileBody, compileField, compilePath, compileQuery, compileTarget } from './templates.ts'
import type { Scope, TemplateDeps } from './values.ts'

type Call = ReturnType<typeof compileCall>
export type Plan = ReturnType<typeof compilePlan>
export type { Call }

/**
 * Compiles a route. `isDropped`: test for headers whose copies from clients are removed. `missedBy` returns the counter of
 * responses without the part of a call.
 */
export function compilePlan(
  route: RouteConfig,
  isDropped: (header: string) => boolean,
  missedBy: (call: string) => { inc(): void }
) {
  const { calls, response, ...limits } = route.compose!
  const { targets } = route
  const indexOf = (name: string) => targets.findIndex(({ call }) => call?.name === name)
  const deps = { indexOf, isDropped }
  const compiled = targets.map((target) => compileCall(route, target, deps))
  const inFile = Object.keys(calls).map((name) => compiled[indexOf(name)]!)
  const optional = compiled.flatMap(({ name, required }) => (required ? [] : [[name, missedBy(name)] as const]))
  return {
    ...limits,
    route: { name: route.name, config: route.config ?? {} },
    /** In an order in which each call follows those that it waits for. */
    calls: compiled,
    /** In the order of the file: later parts replace members of earlier ones. */
    parts: inFile.filter(({ include }) => include),
    ...usesOf(route.compose!),
    reshape: compileReshaping(response),
    additions: (response.add ?? []).map(({ when, value }) => ({ when, text: JSON.stringify(value) })),
    status: response.status,
    /** Counters of the calls that may fail. */
    missed: new Map(optional),
    statusIndex: response.statusOf === undefined ? null : indexOf(response.statusOf),
    headers: Object.entries(response.headers ?? {}).map(
      ([name, text]) => [name.toLowerCase(), compileField(text, deps)] as const
    )
  }
}

function compileCall(route: RouteConfig, { service, mesh, call: target }: RouteTarget, deps: TemplateDeps) {
  const { name, after } = target!
  const call = route.compose!.calls[name]!
  const { method, body } = call
  const passesSlash = route.path?.encodedSlash === 'pass'
  const fields = Object.entries(call.headers ?? {}).map(
    ([header, text]) => [header.toLowerCase(), compileField(text, deps)] as const
  )
  return {
    name,
    service,
    method,
    after: after.map(deps.indexOf),
    as: call.as,
    required: call.required,
    timeout: call.timeout ?? null,
    maxSize: call.maxSize,
    passStatus: new Set(call.passStatus),
    include: call.include,
    policy: Object.keys(mesh).length > 0 ? mesh : null,
    target: compileTarget(
      compilePath(call.path, deps, passesSlash),
      compileQuery(call.query ?? {}, deps),
      () => new BadInput(`call ${name}`, 'its path and query are too long')
    ),
    headers: (scope: Scope) => headersOf(fields, scope, () => new BadInput(`call ${name}`, 'its headers are too long')),
    body: body === undefined ? null : compileBody(body, deps),
    members: membersOf(call.target ?? ''),
    place: placeOf(call),
    reshape: compileReshaping(call),
    /** The default as JSON text, since each response gets a copy; null without one. */
    substitute: Object.hasOwn(call, 'default') ? JSON.stringify(call.default) : null
  }
}

type Field = readonly [name: string, values: (scope: Scope) => readonly string[]]

/** Most bytes and field lines of a call's header section: the default limits of common servers. */
const mostHeaders = { bytes: 16_384, lines: 100 }

/** Returns the fields of a call as name, value, name, value. */
function headersOf(fields: readonly Field[], scope: Scope, tooLong: () => Error): string[] {
  const names = new Set(fields.map(([name]) => name))
  const own = ['accept', 'accept-encoding'].filter((name) => !names.has(name))
  const given = fields.flatMap(([name, values]) => values(scope).map((value) => [name, value] as const))
  // With the colon, the space and the line break of each line.
  const bytes = given.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0)
  if (given.length > mostHeaders.lines || bytes > mostHeaders.bytes) throw tooLong()
  return [...own.flatMap((name) => [name, name === 'accept' ? 'application/json' : 'identity']), ...given.flat()]
}

/** Returns what the templates of a route use. */
function usesOf(compose: ComposeConfig) {
  const found = referencesIn(compose).map(({ source }) => source)
  const headers = found.flatMap((source) => (source.of === 'headers' ? source.name : []))
  return {
    /** Request headers on which the response depends. */
    vary: [...new Set(headers)],
    /** True if the response depends on the caller. */
    isPersonal:
      found.some(({ of }) => of === 'consumer' || of === 'claims') ||
      headers.some((name) => name === 'authorization' || name === 'cookie'),
    usesBody: found.some(({ of }) => of === 'body')
  }
}

/** Returns a weak entity tag: the order of members is that of the services. */
export const weakTag = (text: string) => `W/"${hash('sha1', text, 'base64url')}"`
