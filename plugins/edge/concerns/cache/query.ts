/** The query as a part of keys: byte for byte, unless options ignore parameters or their order. */
import type { CacheOptions } from './options.ts'

type KeyOptions = Pick<NonNullable<CacheOptions['key']>, 'ignoreQuery' | 'sortQuery'>

/** Returns the function that turns a path with its query into the text for keys. */
export function digestedQuery({ ignoreQuery, sortQuery = false }: KeyOptions): (path: string) => string {
  if (ignoreQuery === undefined && !sortQuery) return (path) => path
  const exact = new Set(ignoreQuery?.filter((name) => !name.endsWith('*')))
  const prefixes = (ignoreQuery ?? []).filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1))
  const isIgnored = (parameter: string): boolean => {
    // Some services also separate parameters by semicolons: what follows one may be a parameter that counts.
    if (parameter.includes(';')) return false
    const name = nameOf(parameter)
    return exact.has(name) || prefixes.some((prefix) => name.startsWith(prefix))
  }
  return (path) => {
    const start = path.indexOf('?')
    if (start < 0) return path
    const kept = path
      .slice(start + 1)
      .split('&')
      .filter((each) => !isIgnored(each))
    // Equal names keep their order, which means something to many services.
    if (sortQuery) kept.sort((a, b) => compare(nameOf(a), nameOf(b)))
    return kept.length === 0 ? path.slice(0, start) : `${path.slice(0, start)}?${kept.join('&')}`
  }
}

function nameOf(parameter: string): string {
  const equals = parameter.indexOf('=')
  return equals < 0 ? parameter : parameter.slice(0, equals)
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
