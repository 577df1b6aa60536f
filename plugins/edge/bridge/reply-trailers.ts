/**
 * Trailer functions of plugins (`reply.trailer`). Fastify calls them when the body has ended: the hook that set one is over,
 * and the header section is sent. What such a function throws would end the process, and a response whose function never
 * calls back would have no end.
 */
import createError from '@fastify/error'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { hopByHop, token } from '../../http-syntax.ts'
import { asError, isThenable } from '../../thrown.ts'
import { inContext } from '../async-context.ts'
import { recordFailure } from '../errors.ts'
import { breakOff } from './break-off.ts'
import { fieldValue } from './response-fields.ts'
import { usualTimeoutMs } from './stream-faults.ts'

const TrailerFailed = createError('JW_PLUGIN_FAILED', 'the function for trailer %s of plugin %s failed: %s', 500)

type TrailerFunction = (reply: FastifyReply, payload: unknown, done: Done) => unknown
type Done = (error: unknown, value?: unknown) => void
type Prototype = { trailer: (this: FastifyReply, name: string, code: TrailerFunction) => FastifyReply }

declare module 'fastify' {
  interface FastifyReply {
    /** Returns whether the response has trailer functions, so that it must be sent in chunks. */
    hasTrailerFunctions: () => boolean
    /** Removes the trailer functions of a response that cannot have trailers. */
    removeTrailerFunctions: () => void
  }
}

/** Names of the trailers that have a function. */
const namesOf = new WeakMap<FastifyReply, Set<string>>()

/**
 * Guards all functions that are given to `reply.trailer` on this server from here on. Fastify's list of them is private,
 * and so is the prototype of its replies; the symbol is looked up by its description, since an embedding server may bring
 * its own copy of Fastify.
 */
export function guardTrailers(fastify: FastifyInstance): void {
  // Fastify uses the class of this server only if it has decorators.
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
    // Fastify refuses it.
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

/** One call of a trailer function. */
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
      else this.#take(value)
    }
    const call = () => code(this.#reply, payload, done)
    try {
      const result = fastify.hasDecorator('faultOwners') ? fastify.faultOwners.run(this, call) : call()
      if (isThenable(result))
        result.then(
          (value) => this.#take(value),
          (error) => this.#fail(asError(error))
        )
    } catch (error) {
      this.#fail(asError(error))
    }
    if (!this.#isOver) this.#bound()
  }

  /** Takes what the function throws in a timer or a promise. */
  contain(error: Error): boolean {
    this.#fail(error)
    return true
  }

  #bound(): void {
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
    return record?.hookTimeoutOf(this.plugin) ?? usualTimeoutMs
  }

  #end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }

  #take(value: unknown): void {
    if (this.#isOver) return
    const isText = (typeof value === 'string' || typeof value === 'number') && fieldValue.test(String(value))
    if (!isText) {
      this.#fail(new Error('its value has characters that a field cannot have, or is no text'))
      return
    }
    this.#end()
    this.#done(null, String(value))
  }

  /** Breaks the response off. Without its trailers it is not whole: they may be the signature of its body. */
  #fail(error: Error): void {
    const { request, raw } = this.#reply
    const { plugin } = this
    const fault = Object.assign(new TrailerFailed(this.#name, plugin, error.message), { cause: error })
    request.log.error({ plugin, hook: 'trailer', err: error }, fault.message)
    if (this.#isOver) return
    this.#end()
    recordFailure(request, fault)
    breakOff(request.raw, raw)
  }
}
