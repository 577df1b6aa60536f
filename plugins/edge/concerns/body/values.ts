/** Values of `set` and `add`: constants, and templates that take values of the request and of the response. */
import type { Scope } from '../../templates/values.ts'
import { compileText, compileValue, longestValue } from '../../templates/values.ts'
import { textsIn } from './options.ts'

/** Returns a value as JSON; undefined if a reference in it has no value. */
export type JsonOf = (scope: Scope) => Buffer | undefined

const inText = {
  value: (value: unknown) =>
    value === undefined || value === null
      ? undefined
      : typeof value === 'object' && !Array.isArray(value)
        ? JSON.stringify(value)
        : String(value),
  literal: (text: string) => text
}

/** Compiles a value. What has no references is written once. */
export function compileJson(value: unknown): JsonOf {
  const make = compile(value)
  if (textsIn(value).every((text) => !/[{}]/.test(text))) {
    const bytes = Buffer.from(JSON.stringify(value))
    return () => bytes
  }
  return (scope) => {
    const made = make(scope)
    return made === undefined ? undefined : Buffer.from(JSON.stringify(made))
  }
}

type Make = (scope: Scope) => unknown

function compile(value: unknown): Make {
  if (typeof value === 'string') return compileOne(value)
  if (typeof value !== 'object' || value === null) return () => value
  if (Array.isArray(value)) {
    const items = value.map(compile)
    return (scope) => allOf(items.map((item) => item(scope)))
  }
  const members = Object.entries(value).map(([name, member]) => [name, compile(member)] as const)
  return (scope) => {
    const made = members.map(([name, member]) => [name, member(scope)] as const)
    return made.some(([, member]) => member === undefined) ? undefined : Object.fromEntries(made)
  }
}

const allOf = (items: readonly unknown[]) => (items.includes(undefined) ? undefined : items)

/** A template that is one reference takes the value with its type: a list of a claim stays a list. */
function compileOne(text: string): Make {
  const read = compileValue(text)
  if (read === null) return compileText(text, inText)
  return (scope) => {
    const value = read(scope)
    if (value === undefined || value === null || value === '') return undefined
    // Bounded as a text of several references is.
    return typeof value === 'number' || JSON.stringify(value).length <= longestValue ? value : undefined
  }
}
