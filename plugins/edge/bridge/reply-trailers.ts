/**
 * Trailer functions of plugins (`reply.trailer`). Fastify calls them when the body has ended, long after the hook that set
 * them. Without this guard, an error in such a function would end the process, and a function that never calls back would
 * leave the response open for ever.
 */
import createError from '@fastify/error'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { hopByHop, token } from '../../http-syntax.ts'
import { asError, isThenable } from '../../thrown.ts'
import { inContext } from '../async-context.ts'
import { recordFailure } from '../errors.ts'
import { abortResponse } from './abort-response.ts'
import { fieldValue } from './response-fields.ts'
import { defaultHookTimeoutMs } from './stream-faults.ts'

const TrailerFailed = createError('JW_PLUGIN_FAILED', 'the function for the trailer %s of plugin %s failed: %s', 500)

type TrailerFunction = (reply: FastifyReply, payload: unknown, done: Done) => unknown
type Done = (error: unknown, value?: unknown) => void
type Prototype = { trailer: (this: FastifyReply, name: string, code: TrailerFunction) => FastifyReply }

declare module 'fastify' {
  interface FastifyReply {
    /** Returns whether the response has trailer functions, so that it needs chunked encoding. */
    hasTrailerFunctions: () => boolean
    /** Removes the trailer functions of a response that cannot have trailers. */
    removeTrailerFunctions: () => void
  }
}

/** Names of the trailers that have a function. */
const namesOf = new WeakMap<FastifyReply, Set<string>>()

/**
 * Guards all functions that are passed to `reply.trailer` on this server from now on. Fastify's list of them and the
 * prototype of its replies are private. The symbol is found by its description, because an embedding server may have its
 * own copy of Fastify.
 */
export function guardTrailers(fastify: FastifyInstance): void {
  // Decorators make Fastify use a reply class of this server's own.
  fastify.decorateReply('hasTrailerFunctions', function () {
    return [...(namesOf.get(this) ?? [])].some((name) => this.hasTrailer(name))
  })
  fastify.decorateReply('removeTrailerFunctions', function () {
    for (const name of namesOf.get(this) ?? []) this.removeTrailer(name)
  })
  const symbol = Object.getOwnPropertySymbols(fastify).find(({ description }) => description === 'fastify.Reply')
  if (symbol === undefined) throw new Error('this version of Fastify keeps the class of its replies elsewhere')
  const { prototype } = Reflect.get(fastify, symbol) as { prototype: Prototype }
  const { trailer } = prototype
  prototype.trailer = function (name, code) {
    const key = String(name).toLowerCase()
    if (!token.test(key) || hopByHop.has(key))
      throw new TypeError(`a trailer cannot have the name ${JSON.stringify(name)}`)
    // Fastify throws for it.
    if (typeof code !== 'function') return trailer.call(this, name, code)
    const plugin = ownerOf(fastify)
    trailer.call(this, name, (reply, payload, done) => {
      inContext(reply.request, () => new TrailerRun(fastify, plugin, key, reply, done).run(code, payload))
    })
    const names = namesOf.get(this)
    if (names === undefined) namesOf.set(this, new Set([key]))
    else names.add(key)
    return this
  }
}

function ownerOf(fastify: FastifyInstance): string {
  return (fastify.hasDecorator('faultOwners') ? fastify.faultOwners.current?.plugin : undefined) ?? 'unknown'
}

/** A call of a trailer function. */
class TrailerRun {
  readonly plugin: string
  readonly #fastify: FastifyInstance
  readonly #name: string
  readonly #reply: FastifyReply
  readonly #done: Done
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  constructor(fastify: FastifyInstance, plugin: string, name: string, reply: FastifyReply, done: Done) {
    this.#fastify = fastify
    this.plugin = plugin
    this.#name = name
    this.#reply = reply
    this.#done = done
  }

  run(code: TrailerFunction, payload: unknown): void {
    const fastify = this.#fastify
    const done: Done = (error, value) => {
      if (error) this.#fail(asError(error))
      else this.#complete(value)
    }
    const call = () => code(this.#reply, payload, done)
    try {
      const result = fastify.hasDecorator('faultOwners') ? fastify.faultOwners.run(this, call) : call()
      if (isThenable(result))
        result.then(
          (value) => this.#complete(value),
          (error) => this.#fail(asError(error))
        )
    } catch (error) {
      this.#fail(asError(error))
    }
    if (!this.#isOver) this.#startTimeout()
  }

  /** Handles an error that the function throws in a timer or a promise. */
  contain(error: Error): boolean {
    this.#fail(error)
    return true
  }

  #startTimeout(): void {
    const { raw } = this.#reply
    if (raw.closed) {
      this.#end()
      return
    }
    raw.once('close', () => this.#end())
    const ms = this.#timeoutMs()
    if (ms > 0) this.#timer = setTimeout(() => this.#fail(new Error(`it did not call back within ${ms} ms`)), ms)
  }

  #timeoutMs(): number {
    const fastify = this.#fastify
    const record = fastify.hasDecorator('pluginRecord') ? fastify.pluginRecord : null
    return record?.hookTimeoutOf(this.plugin) ?? defaultHookTimeoutMs
  }

  #end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }

  #complete(value: unknown): void {
    if (this.#isOver) return
    const isText = (typeof value === 'string' || typeof value === 'number') && fieldValue.test(String(value))
    if (!isText) {
      this.#fail(new Error('its value is not text, or has invalid characters'))
      return
    }
    this.#end()
    this.#done(null, String(value))
  }

  /** Aborts the response. Without its trailers it is incomplete: one may be the signature of the body. */
  #fail(error: Error): void {
    const { request, raw } = this.#reply
    const { plugin } = this
    const fault = Object.assign(new TrailerFailed(this.#name, plugin, error.message), { cause: error })
    request.log.error({ plugin, hook: 'trailer', err: error }, fault.message)
    if (this.#isOver) return
    this.#end()
    recordFailure(request, fault)
    abortResponse(request.raw, raw)
  }
}
