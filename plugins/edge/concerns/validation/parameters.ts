/** Reads parameters from texts, by the styles of OpenAPI, into the values that their schemas describe. */
import { parseStrictJson } from '../../strict-json.ts'
import type { Shape } from './shapes.ts'
import { isArray, isObjectShape, typed } from './shapes.ts'
import type { In, Texts } from './values.ts'
import { decoded } from './values.ts'

export type Style = 'form' | 'simple' | 'label' | 'matrix' | 'spaceDelimited' | 'pipeDelimited' | 'deepObject' | 'json'

export interface Parameter {
  readonly in: In
  readonly name: string
  readonly style: Style
  readonly explode: boolean
  readonly shape: Shape
  /** True if an empty text means that there is no value. */
  readonly mayBeEmpty: boolean
}

/** A text that has no value. The message is for the client. */
class Unreadable extends Error {}

/** Values by name, and what could not be read. */
export interface Read {
  readonly values: Record<string, unknown>
  readonly faults: readonly { readonly parameter: string; readonly detail: string }[]
}

const nothingOf = (): Record<string, unknown> => Object.create(null) as Record<string, unknown>

/** Reads all texts of one place: those of parameters by their style, others as they are. */
export function readParameters(parameters: readonly Parameter[], where: In, texts: Texts): Read {
  const values = nothingOf()
  const faults: { parameter: string; detail: string }[] = []
  const used = new Set<string>()
  for (const parameter of parameters) {
    try {
      const value = readOne(parameter, texts, used)
      if (value !== undefined) values[parameter.name] = value
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      faults.push({ parameter: parameter.name, detail: error.message })
    }
  }
  for (const [name, all] of texts) {
    if (used.has(name)) continue
    const plain = all.map((text) => decoded(text, where) ?? text)
    values[name] = plain.length === 1 ? plain[0] : plain
  }
  return { values, faults }
}

function plain(text: string, where: In): string {
  const value = decoded(text, where)
  if (value === null) throw new Unreadable('must be percent-encoded UTF-8')
  return value
}

/** Returns the value of a parameter; undefined if the request does not have it. */
function readOne(parameter: Parameter, texts: Texts, used: Set<string>): unknown {
  const { name, style, explode, shape, mayBeEmpty } = parameter
  if (style === 'deepObject') return deepObject(parameter, texts, used)
  if (style === 'form' && explode && isObjectShape(shape) && parameter.in === 'query')
    return spreadObject(parameter, texts, used)
  const all = texts.get(name)
  if (all === undefined) return undefined
  used.add(name)
  if (mayBeEmpty && all.every((text) => text === '')) return undefined
  if (isArray(shape) && explode && (style === 'form' || style === 'spaceDelimited' || style === 'pipeDelimited')) {
    return all.map((text) => typedItem(plain(text, parameter.in), shape))
  }
  const [text = '', another] = all
  if (another !== undefined) throw new Unreadable('must be sent only once')
  if (style === 'json') return json(plain(text, parameter.in))
  const rest = style === 'label' || style === 'matrix' ? withoutPrefix(text, parameter) : text
  if (isArray(shape)) return separated(rest, parameter).map((each) => typedItem(plain(each, parameter.in), shape))
  if (isObjectShape(shape)) return members(rest, parameter)
  return typed(plain(rest, parameter.in), shape)
}

const noShape: Shape = { types: new Set(), items: null, properties: new Map() }
const typedItem = (text: string, { items }: Shape) => typed(text, items ?? noShape)
const typedMember = (name: string, text: string, { properties }: Shape) => typed(text, properties.get(name) ?? noShape)

function json(text: string): unknown {
  try {
    return parseStrictJson(text).value
  } catch {
    throw new Unreadable('must be JSON')
  }
}

/** Splits a text before it is decoded, so that an encoded separator belongs to an item. */
function separated(text: string, { in: where, style, explode, name }: Parameter): string[] {
  if (text === '') return []
  if (style === 'spaceDelimited') return text.split(/%20|\+| /)
  if (style === 'pipeDelimited') return text.split(/\||%7[Cc]/)
  if (style === 'label' && explode) return text.split('.')
  if (style === 'matrix' && explode) return text.split(`;${name}=`)
  return where === 'header' ? text.split(',').map((each) => each.trim()) : text.split(',')
}

/** Returns the members of an object: `a,1,b,2`, or with `explode` `a=1,b=2`. */
function members(text: string, parameter: Parameter): Record<string, unknown> {
  const { in: where, style, explode, shape } = parameter
  const object = nothingOf()
  const set = (name: string, value: string) => {
    const key = plain(name, where)
    if (key in object) throw new Unreadable('must name each property once')
    object[key] = typedMember(key, plain(value, where), shape)
  }
  if (explode) {
    const separator = style === 'label' ? '.' : style === 'matrix' ? ';' : ','
    for (const pair of text === '' ? [] : text.split(separator)) {
      const equals = pair.indexOf('=')
      if (equals === -1) throw new Unreadable('must consist of NAME=VALUE')
      set(pair.slice(0, equals).trim(), pair.slice(equals + 1))
    }
    return object
  }
  const items = separated(text, parameter)
  if (items.length % 2 === 1) throw new Unreadable('must consist of names and values')
  for (let i = 0; i < items.length; i += 2) set(items[i]!, items[i + 1]!)
  return object
}

/** Returns an object whose properties are parameters of their own. */
function spreadObject(parameter: Parameter, texts: Texts, used: Set<string>): Record<string, unknown> | undefined {
  const object = nothingOf()
  let isPresent = false
  for (const [name, shape] of parameter.shape.properties) {
    const value = readOne({ ...parameter, name, shape }, texts, used)
    if (value === undefined) continue
    object[name] = value
    isPresent = true
  }
  return isPresent ? object : undefined
}

/** Returns the object of `filter[name]=x`; further levels are no part of OpenAPI. */
function deepObject(parameter: Parameter, texts: Texts, used: Set<string>): Record<string, unknown> | undefined {
  const { name, shape, in: where } = parameter
  const object = nothingOf()
  let isPresent = false
  for (const [key, all] of texts) {
    if (!key.startsWith(`${name}[`) || !key.endsWith(']')) continue
    used.add(key)
    isPresent = true
    const property = key.slice(name.length + 1, -1)
    if (/[[\]]/.test(property)) throw new Unreadable('must have one level of properties')
    const inner = shape.properties.get(property) ?? noShape
    const items = all.map((text) => plain(text, where))
    if (isArray(inner)) object[property] = items.map((text) => typedItem(text, inner))
    else if (items.length > 1) throw new Unreadable('must name each property once')
    else object[property] = typed(items[0]!, inner)
  }
  return isPresent ? object : undefined
}

function withoutPrefix(text: string, { style, name, explode, shape }: Parameter): string {
  const isSpread = explode && isObjectShape(shape)
  const prefix = style === 'label' ? '.' : isSpread ? ';' : `;${name}=`
  if (!text.startsWith(prefix))
    throw new Unreadable(`must begin with ${style === 'label' ? 'a dot' : 'a semicolon and its name'}`)
  return text.slice(prefix.length)
}
