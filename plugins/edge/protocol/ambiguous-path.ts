/** Finds the parts of a path that services read in different ways. */
import createError from '@fastify/error'
import type { RouteConfig } from '../../../config/schema.ts'

export const Ambiguous = createError('JW_AMBIGUOUS_PATH', 'The path can be read in more than one way: %s', 400)

/**
 * Parts of a path that services read in different ways: a dot segment, a backslash, an encoded slash, backslash or NUL, a
 * segment that has only path parameters, overlong UTF-8 of an ASCII character. If they were passed on, a client could
 * bypass the protection of the path that the service finally serves.
 */
const ambiguous = /\\|%(?:2f|5c|00)|\/(?:(?:\.|%2e){1,2}(?:[/;]|%3b|$)|;|%3b)|%(?:c[01]%[89ab]|e0%[89]|f0%8)[\da-f]/i

/** The same for services that distinguish `%2F` from `/`: without encoded slashes, but with dot segments next to them. */
const ambiguousBeside =
  /\\|%(?:5c|00)|(?:\/|%2f)(?:(?:\.|%2e){1,2}(?:[/;]|%2f|%3b|$)|;|%3b)|%(?:c[01]%[89ab]|e0%[89]|f0%8)[\da-f]/i

/** The beginning of a segment's path parameters. */
const parameters = /;|%3b/i

/** Returns the first ambiguous part of a path; null if there is none. `passes`: what the route lets through. */
export function ambiguousPart(path: string, passes: RouteConfig['path']): string | null {
  let found = ambiguous.exec(path)
  if (found !== null && passes?.encodedSlash === 'pass') found = ambiguousBeside.exec(path)
  if (found === null && passes?.parameters !== 'pass') found = parameters.exec(path)
  return found?.[0] ?? null
}
