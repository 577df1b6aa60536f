/** Changes of JSON bodies, as those of `edge.body`. */
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Largest body: the other gateways have no limit, and 16 MB is the most. */
const maxSize = '16mb'

/** Returns the pointer of a member of the body, whose name may have any characters. */
export const pointerTo = (...names: readonly string[]): string =>
  names.map((name) => `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')

/** Adds rules to those that the settings have. */
export function addBodyRules(edge: Settings, direction: 'request' | 'response', rules: readonly Settings[]): void {
  if (rules.length === 0) return
  const body = (edge.body ?? { maxSize }) as Settings
  const all = [body[direction] ?? [], rules].flat() as Settings[]
  edge.body = { ...body, [direction]: all.length === 1 ? all[0] : all }
}

/** Returns the names and values of texts such as `name:value`. */
const pairsIn = (texts: readonly string[]): (readonly [name: string, value: string])[] =>
  texts.map((text) => {
    const colon = text.indexOf(':')
    return colon === -1 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)]
  })

/** Returns a value with the type that Kong gives it; undefined if the text is none of this type. */
function typed(text: string, type: string | undefined): unknown {
  if (type === 'number')
    return String(Number(text)) === text && Number.isFinite(Number(text)) ? Number(text) : undefined
  if (type === 'boolean') return text === 'true'
  // A text in braces would be a template.
  return text.replace(/[{}]/g, '$&$&')
}

/**
 * Adds the rules of Kong's request-transformer (`key`: body) or response-transformer (`key`: json). `replace` and `append`
 * stay unread, and so are noted: they depend on the value that is there. Returns whether there are rules.
 */
export function addKongBody(
  config: Foreign,
  key: 'body' | 'json',
  edge: Settings,
  note: (text: string) => void
): boolean {
  const removed = config.map('remove')?.texts(key) ?? []
  const renamed = pairsIn(config.map('rename')?.texts(key) ?? []).filter(([from, to]) => from !== to && to !== '')
  const values = config.map('add')
  const types = values?.texts('json_types') ?? []
  const added = pairsIn(values?.texts(key) ?? []).flatMap(([name, text], index) => {
    const value = text.includes('$(') ? undefined : typed(text, types[index])
    if (value === undefined) note(`add.${key}: ${name}: ${text} is not converted; write it under edge.body`)
    return value === undefined ? [] : [[pointerTo(name), value] as const]
  })
  const targets = new Set(renamed.map(([, to]) => to))
  // Moves that depend on their order are rules of their own.
  const isOneRule = targets.size === renamed.length && renamed.every(([from]) => !targets.has(from))
  const moves = renamed.map(([from, to]) => [pointerTo(from), pointerTo(to)] as const)
  const ofJson = ['application/json']
  const rules = [
    { remove: [...new Set(removed.map((name) => pointerTo(name)))] },
    ...(isOneRule ? [{ rename: Object.fromEntries(moves) }] : moves.map(([from, to]) => ({ rename: { [from]: to } }))),
    { add: Object.fromEntries(added) }
  ].filter((rule) => Object.values(rule).some((each) => Object.keys(each).length > 0))
  const joined = isOneRule && rules.length > 0 ? [Object.assign({}, ...rules) as Settings] : (rules as Settings[])
  addBodyRules(
    edge,
    key === 'body' ? 'request' : 'response',
    joined.map((rule) => ({ types: ofJson, ...rule }))
  )
  return joined.length > 0
}

/** Encodings of KrakenD with which it changes JSON. */
const jsonEncodings: ReadonlySet<string | undefined> = new Set([undefined, 'json', 'fast-json', 'safejson'])

/**
 * Adds the rules of a backend of KrakenD: `target`, `allow` or `deny`, `mapping`, `group`. Returns false if they mean something
 * else than `edge.body`.
 */
export function addKrakendBody(backend: Foreign, edge: Settings): boolean {
  const isManipulated = backend.map('extra_config')?.map('proxy')?.has('flatmap_filter') === true
  const isList = backend.flag('is_collection') === true
  const encoding = backend.text('encoding')
  const target = backend.text('target') ?? ''
  const [allow, deny] = [backend.texts('allow'), backend.texts('deny')]
  const mapping = backend.map('mapping')
  const group = backend.text('group') ?? ''
  if (
    isManipulated ||
    !jsonEncodings.has(encoding) ||
    [target, ...allow, ...deny].some((name) => /^\.|\.\.|\.$/.test(name))
  )
    return false
  const nested = (name: string): string => pointerTo(...name.split('.'))
  const outermost = (names: readonly string[]): string[] =>
    [...new Set(names)].filter((name) => !names.some((other) => name.startsWith(`${other}.`))).map(nested)
  const moves = (mapping?.keys ?? []).map((from) => [pointerTo(from), pointerTo(mapping!.text(from) ?? from)] as const)
  const moved = moves.filter(([from, to]) => from !== to)
  const targets = moved.map(([, to]) => to)
  // KrakenD's own order of these is random.
  if (new Set(targets).size < targets.length || moved.some(([from]) => targets.includes(from))) return false
  const filter = {
    ...(allow.length > 0 ? { only: outermost(allow) } : deny.length > 0 ? { remove: outermost(deny) } : {}),
    ...(moved.length > 0 && { rename: Object.fromEntries(moved) })
  }
  const rules: Settings[] = [
    ...(isList ? [{ rename: { '': '/collection' } }] : []),
    // A value that is no object leaves an empty one.
    ...(target === '' ? [] : [{ only: [`${nested(target)}/*`], rename: { [nested(target)]: '' } }]),
    ...(Object.keys(filter).length > 0 ? [filter] : []),
    ...(group === '' ? [] : [{ rename: { '': pointerTo(group) } }])
  ]
  // KrakenD reads bodies of any type, and passes on those of responses with 200 and 201 only.
  addBodyRules(
    edge,
    'response',
    rules.map((rule) => ({ statuses: ['2xx'], types: ['*/*'], ...rule }))
  )
  return true
}
