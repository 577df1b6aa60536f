/** Calls in parallel, of which some may fail: a default takes the place of their result. */
import type { FastifyRequest } from 'fastify'
import { checkAll, checkFunction } from './misuse.ts'

type RequestMesh = FastifyRequest['mesh']

/** A function that makes calls and returns a result. */
export type Call<T> = (mesh: RequestMesh) => T | Promise<T>

/** A call whose failure does not fail the others. */
export interface OptionalCall<T> {
  readonly call: Call<T>
  /** Takes the place of the result if the call fails. */
  readonly substitute: T
}

export type Calls = Readonly<Record<string, Call<unknown> | OptionalCall<unknown>>>

type ResultOf<C> = C extends OptionalCall<infer T> ? T : C extends (mesh: RequestMesh) => infer R ? Awaited<R> : never

export interface ParallelResult<C extends Calls> {
  /** Results and substitutes, by the names of the calls. */
  readonly data: { [K in keyof C]: ResultOf<C[K]> }
  /** Names of the optional calls that failed, in the order of the calls. */
  readonly missing: readonly (keyof C & string)[]
  /** Errors of these calls, for the log. */
  readonly errors: { readonly [K in keyof C]?: unknown }
}

/** Marks a call as optional: if it fails, `substitute` takes the place of its result. */
export function optional<T>(substitute: NoInfer<T>, call: Call<T>): OptionalCall<T> {
  checkFunction('optional: the second argument', call, "optional(substitute, (mesh) => mesh.json('users', '/'))")
  return { call, substitute }
}

/**
 * Makes calls in parallel. If one that is not optional fails, the others are aborted, and its error is thrown. Calls that
 * are in flight at the deadline of `mesh.within` fail, so that the substitutes complete the result in time.
 */
export async function parallel<C extends Calls>(mesh: RequestMesh, calls: C): Promise<ParallelResult<C>> {
  checkCalls(mesh, calls)
  const controller = new AbortController()
  const scope = mesh.until(controller.signal)
  const { signal } = scope
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  // Without a call, nothing waits for it.
  aborted.catch(() => {})
  const onAbort = () => reject(signal.reason)
  const names = Object.keys(calls)
  const data: Record<string, unknown> = {}
  const errors: Record<string, unknown> = {}

  async function make(name: string): Promise<void> {
    const each = calls[name]!
    const isOptional = typeof each !== 'function'
    try {
      // The race is for a function that waits for something else than a call.
      data[name] = await Promise.race([(isOptional ? each.call : each)(scope), aborted])
    } catch (error) {
      if (!isOptional) throw error
      data[name] = each.substitute
      errors[name] = error
    }
  }

  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  try {
    await Promise.all(names.map(make))
  } catch (error) {
    controller.abort(error)
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
  const missing = names.filter((name) => Object.hasOwn(errors, name))
  return { data, missing, errors } as ParallelResult<C>
}

function checkCalls(mesh: RequestMesh, calls: Calls): void {
  checkAll(calls ?? {}, (name, each) => {
    const call = typeof each === 'object' && each !== null && 'call' in each ? each.call : each
    checkFunction(`parallel: ${name}`, call, `${name}: (mesh) => mesh.json('users', '/')`)
  })
  if (typeof mesh?.until === 'function' && typeof calls === 'object' && calls !== null) return
  throw new TypeError('parallel: the first argument must be request.mesh: write parallel(mesh, { … })')
}
