/** Functions for plugins of users; the edge uses them as well. */
import type { TransformCallback } from 'node:stream'
import { pipeline, Readable, Transform } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import type { RouteOptions } from 'fastify'
import type { Dispatcher } from 'undici'
import type { Key } from '../config/concern.ts'
import { isConnectionHeader } from '../config/header-names.ts'
import type { MeshConcern } from './mesh/concern.ts'

/**
 * A mesh concern, as a user's module exports it: `export default { … } satisfies UserMeshConcern`. It has all that a
 * bundled one has.
 */
export interface UserMeshConcern extends Omit<Key, 'levels'>, Pick<MeshConcern, 'layer' | 'repeats'> {
  /** Default: every level. */
  readonly levels?: Key['levels']
  /** Its place, unless `plugins[].order` says otherwise. */
  readonly order?: { readonly before?: string; readonly after?: string }
}

type Headers = Dispatcher.DispatchOptions['headers']

/** Returns headers in any shape that undici takes (none, a flat list, an object, an iterable of pairs) as name, value, name, value. */
export function headerPairs(headers: Headers): string[] {
  if (headers === null || headers === undefined) return []
  if (Array.isArray(headers)) return headers.map(String)
  const entries = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
  return entries.flatMap(([name, value]) => [value ?? []].flat().flatMap((each) => [String(name), String(each)]))
}

/**
 * Returns a copy of dispatch options with these headers set, in place of any of the same name; null removes a header. A
 * copy, since the next attempt of the call starts from the same options.
 */
export function withHeaders<T extends Pick<Dispatcher.DispatchOptions, 'headers'>>(
  options: T,
  headers: Readonly<Record<string, string | null>>
): T {
  const set = new Set(Object.keys(headers).map((name) => name.toLowerCase()))
  const before = headerPairs(options.headers)
  const kept = before.filter((_, index) => !set.has(before[index - (index % 2)]!.toLowerCase()))
  const added = Object.entries(headers).flatMap(([name, value]) => (value === null ? [] : [name, value]))
  return { ...options, headers: [...kept, ...added] }
}

/**
 * Adds to the headers that a route drops, in an `onRoute` hook: no client's copy of them reaches the route's services, by
 * this route or any other. A new config object, as the one at hand may belong to several routes.
 */
export function dropHeaders(routeOptions: Pick<RouteOptions, 'config'>, names: readonly string[]): void {
  for (const name of names) {
    if (isConnectionHeader(name)) throw new Error(`header ${name} belongs to the connection and cannot be set`)
  }
  const before = routeOptions.config?.dropHeaders ?? []
  routeOptions.config = { ...routeOptions.config, dropHeaders: [...before, ...names] }
}

/** Characters of the longest line that `mapLines` takes. */
const longestLine = 1024 * 1024

/**
 * Passes a body through a function, line by line, each as it comes; blank lines stay as they are. Fails at a line of more
 * than a million characters, and where the function throws. For payloads of `onSend` hooks: others than streams stay.
 */
export function mapLines(payload: unknown, change: (line: string) => string): unknown {
  if (!(payload instanceof Readable)) return payload
  // Each ends with the other. Whoever reads the lines learns of errors.
  return pipeline(payload, new Lines(change), () => {})
}

class Lines extends Transform {
  readonly #change: (line: string) => string
  readonly #decoder = new StringDecoder()
  #rest = ''

  constructor(change: (line: string) => string) {
    super()
    this.#change = (line) => (line.trim() === '' ? line : change(line))
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    const lines = (this.#rest + this.#decoder.write(chunk)).split('\n')
    this.#rest = lines.pop()!
    if (this.#rest.length > longestLine) done(new Error('a line is too long'))
    else this.#pass(lines, '\n', done)
  }

  override _flush(done: TransformCallback): void {
    this.#pass([this.#rest + this.#decoder.end()], '', done)
  }

  #pass(lines: readonly string[], end: string, done: TransformCallback): void {
    try {
      done(null, lines.map((line) => this.#change(line) + end).join(''))
    } catch (error) {
      done(error as Error)
    }
  }
}
