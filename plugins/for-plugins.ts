/** Functions for users' plugins; the edge uses them, too. */
import type { TransformCallback } from 'node:stream'
import { pipeline, Readable, Transform } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import type { RouteOptions } from 'fastify'
import type { TSchema } from 'typebox'
import type { Dispatcher } from 'undici'
import type { Key } from '../config/concern.ts'
import { isConnectionHeader } from '../config/header-names.ts'
import type { EdgeDefinition } from './edge/concern.ts'
import { headerPairs } from './http-syntax.ts'
import type { MeshConcern } from './mesh/concern.ts'

export { headerPairs }

/** Definition of an edge concern in a user's module. It can do everything that a bundled one can. */
export interface UserEdgeConcern<S extends TSchema = TSchema> extends EdgeDefinition<S> {
  /** Position among the edge concerns, unless `plugins[].order` sets another. */
  readonly order?: { readonly before?: string; readonly after?: string }
  /** Schemas of the keys of `routes[].config` that it reads. */
  readonly routeConfig?: Readonly<Record<string, TSchema>>
}

/**
 * Definition of a mesh concern in a user's module: `export default { … } satisfies UserMeshConcern`. It can do everything
 * that a bundled one can.
 */
export interface UserMeshConcern extends Omit<Key, 'levels'>, Pick<MeshConcern, 'layer' | 'repeats'> {
  /** Default: every level. */
  readonly levels?: Key['levels']
  /** Position among the mesh concerns, unless `plugins[].order` sets another. */
  readonly order?: { readonly before?: string; readonly after?: string }
}

/**
 * Returns a copy of dispatch options in which these headers replace those of the same name; null removes a header. It is a
 * copy because the next attempt of the call starts from the same options.
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
 * Adds names to the headers that a route drops; for `onRoute` hooks. Clients' copies of these headers do not reach the
 * route's services, by this route or any other. Sets a new config object, since several routes may share the old one.
 */
export function dropHeaders(routeOptions: Pick<RouteOptions, 'config'>, names: readonly string[]): void {
  for (const name of names) {
    if (isConnectionHeader(name)) throw new Error(`header ${name} belongs to the connection and cannot be set`)
  }
  const before = routeOptions.config?.dropHeaders ?? []
  routeOptions.config = { ...routeOptions.config, dropHeaders: [...before, ...names] }
}

/** Maximum length of a line in `mapLines`, in characters. */
const longestLine = 1024 * 1024

/**
 * Passes a stream through a function line by line, without waiting for the end; blank lines are unchanged. The stream fails
 * at a line of more than a million characters, or if the function throws. For payloads of `onSend` hooks: payloads that are
 * not streams are returned unchanged.
 */
export function mapLines(payload: unknown, change: (line: string) => string): unknown {
  if (!(payload instanceof Readable)) return payload
  // `pipeline` destroys both streams together; the reader of the lines gets errors, so the callback is empty.
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
