/** Makes the calls of a composed request: at the same time, or one after the other where a call uses a response. */
import type { FastifyRequest } from 'fastify'
import { valueAt } from '../../config/json-pointer.ts'
import { BadInput, Broken, Late, passedStatus, TooLarge, WrongShape, WrongStatus } from './errors.ts'
import { cachedPart } from './freshness.ts'
import { isObject } from './members.ts'
import { readPart } from './part.ts'
import type { Call, Plan } from './plan.ts'
import type { Received, Scope } from './values.ts'

/** Responses of all calls. */
export interface Results {
  readonly scope: Scope
  /** Names of the calls that failed. */
  readonly missing: readonly string[]
}

/**
 * Makes all calls. Rejects as soon as a required call fails, and aborts the others. A call that needs the response of a
 * failed call is not made, and fails as well.
 */
export async function run(plan: Plan, request: FastifyRequest, body: unknown): Promise<Results> {
  const running = new Running(plan, request, body)
  let isWhole = false
  try {
    const ends: Promise<void>[] = []
    for (const [index, call] of plan.calls.entries()) {
      const waits = call.after.length === 0 ? null : Promise.all(call.after.map((other) => ends[other]))
      ends.push(running.perform(index, call, waits))
    }
    await Promise.all(ends)
    isWhole = running.missing.length === 0
    return { scope: running.scope, missing: running.missing }
  } finally {
    running.end(isWhole)
  }
}

class Running {
  readonly scope: Scope
  readonly missing: string[] = []
  readonly #plan: Plan
  readonly #request: FastifyRequest
  readonly #errors = new Map<number, Error>()
  readonly #controller = new AbortController()
  readonly #timer: NodeJS.Timeout
  #bytes = 0

  constructor(plan: Plan, request: FastifyRequest, body: unknown) {
    this.#plan = plan
    this.#request = request
    this.scope = { request, body, responses: plan.calls.map(() => null) }
    request.partialCalls = []
    const { timeout } = plan
    this.#timer = setTimeout(() => this.#controller.abort(new Late('compose', timeout)), timeout)
  }

  /** Clears the timer. If a call has failed, aborts what still runs: other calls, or the rest of a body that is not used. */
  end(isWhole: boolean): void {
    clearTimeout(this.#timer)
    if (!isWhole) this.#controller.abort()
  }

  /** Makes one call once those that it waits for have ended. Rejects if the whole response fails. */
  async perform(index: number, call: Call, waits: Promise<unknown> | null): Promise<void> {
    if (waits !== null) await waits
    const start = performance.now()
    const record = { call: call.name, service: call.service, status: 0, ms: 0, error: '' }
    try {
      const failed = call.after.find((other) => this.#errors.has(other))
      if (failed !== undefined) throw this.#errors.get(failed)
      this.scope.responses[index] = await this.#received(call, record)
    } catch (thrown) {
      const error = coded(thrown, call.name)
      record.error = String(error.code)
      if (call.required || error instanceof BadInput) throw error
      this.#errors.set(index, error)
      this.missing.push(call.name)
    } finally {
      record.ms = Math.round((performance.now() - start) * 100) / 100
      const { status, error, ...rest } = record
      this.#request.partialCalls?.push({ ...rest, ...(status > 0 && { status }), ...(error !== '' && { error }) })
    }
  }

  async #received(call: Call, record: { status: number }): Promise<Received> {
    this.#controller.signal.throwIfAborted()
    const bound = call.timeout === null ? null : limited(call.timeout, call.name, this.#controller.signal)
    try {
      return await this.#exchange(call, record, bound?.signal ?? this.#controller.signal)
    } finally {
      bound?.end()
    }
  }

  async #exchange(call: Call, record: { status: number }, signal: AbortSignal): Promise<Received> {
    const { scope } = this
    const body = call.body?.(scope)
    if (call.body !== null && body === undefined) throw new BadInput(`call ${call.name}`, 'its body is missing')
    const headers = call.headers(scope)
    const response = await this.#request.mesh.request({
      origin: `http://${call.service}.mesh`,
      path: call.target(scope),
      method: call.method,
      headers: body === undefined ? headers : ['content-type', 'application/json', ...headers],
      ...(body !== undefined && { body: JSON.stringify(body) }),
      route: this.#plan.route,
      ...(call.policy !== null && { mesh: call.policy }),
      maxResponseSize: call.maxSize,
      signal
    })
    const { statusCode: status } = response
    record.status = status
    // Concerns read the response of each call, as those of other routes.
    const fields = this.#request.onServiceResponse?.(response.headers, status) ?? response.headers
    if (status < 200 || status > 299) {
      // Read, so that the connection can be used again.
      response.body.dump().catch(() => {})
      throw call.passStatus.has(status) ? passedStatus(status) : new WrongStatus(call.name, call.service, status)
    }
    const part = await readPart(response, call)
    this.#bytes += part.bytes
    if (this.#bytes > this.#plan.maxSize) throw new TooLarge(call.name, this.#plan.maxSize)
    const isSafe = call.method === 'GET' || call.method === 'HEAD'
    const received = { status, headers: fields, caching: cachedPart(fields, isSafe), body: part.body }
    checkShape(call, received)
    return received
  }
}

/** Throws if the response cannot be put into the composed one. */
function checkShape(call: Call, { body }: Received): void {
  if (!call.include) return
  const value = valueAt(body, call.members)
  if (value === undefined) throw new WrongShape(call.name, `the body has no ${call.members.join('/')}`)
  if (call.place.length > 0 || value === null || isObject(value)) return
  throw new WrongShape(call.name, 'the body is not an object, so that it needs a "group"')
}

type Coded = Error & { code?: unknown }

/** Returns an error with a code: the error table knows those of the gateway, Node and undici. */
function coded(thrown: unknown, call: string): Coded {
  const error: Coded = thrown instanceof Error ? thrown : new Error(String(thrown))
  return typeof error.code === 'string' ? error : Object.assign(new Broken(call), { cause: error })
}

/** Returns a signal that is aborted after a time, or with another signal. */
function limited(ms: number, call: string, other: AbortSignal) {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(new Late(call, ms)), ms)
  const abort = () => controller.abort(other.reason)
  other.addEventListener('abort', abort, { once: true })
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer)
      other.removeEventListener('abort', abort)
    }
  }
}
